// A vCPU that waits in user mode for another one, in a loop that no stop ends: where it can be stopped so
// that replay finds the place.
#pragma once

#include <optional>

#include "base/result.h"
#include "log/event.h"
#include "vmm/kvm/kvm.h"
#include "x86/page_walk.h"

namespace reprise::vmm {

// Single-steps the vCPU, some dozens of instructions at most, to see whether its state comes round: the same
// registers again, and nothing written. If so, it stands at that state afterwards, and however often it goes
// round, it is the same state. Only instructions are stepped over that cannot tell (no system calls, no
// pushed flags), and cannot fault. Errors: kHost.
Result<std::optional<log::Spin>> find_spin(KvmVcpu& vcpu, const x86::PhysicalReader& memory);

// Replay: single-steps for a turn of the loop. True: the vCPU stands where the registers are those of `spin`.
// False: it is not in the loop yet. Errors: kHost.
Result<bool> step_into_spin(KvmVcpu& vcpu, const x86::PhysicalReader& memory, const log::Spin& spin);

}  // namespace reprise::vmm
