// A vCPU's registers as a debugger sees and changes them.
#pragma once

#include "base/result.h"
#include "replay/debug/registers.h"
#include "vmm/kvm/kvm.h"

namespace reprise::replay {

// Errors: kHost.
Result<Registers> read_registers(vmm::KvmVcpu& vcpu);
// Requires: KVM is in the middle of no exit. Errors: kHost, also for values that a processor does not take.
Status write_registers(vmm::KvmVcpu& vcpu, const Registers& registers);

}  // namespace reprise::replay
