// The registers that a vCPU starts with.
#pragma once

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest/boot_state.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// Puts the boot vCPU at the image's entry point. Errors: kHost.
Status set_boot_registers(KvmVcpu& kvm, VcpuId id, const BootState& state);
// What a STARTUP message with this vector leaves; also what another vCPU has after INIT. Errors: kHost.
Status set_startup_registers(KvmVcpu& kvm, VcpuId id, uint8_t vector);

}  // namespace reprise::vmm
