// One instruction of a vCPU, and nothing that the guest could tell it by.
#pragma once

#include "base/result.h"
#include "base/units.h"
#include "vmm/kvm/kvm.h"
#include "vmm/linear_memory.h"

namespace reprise::vmm {

// Whether single_step() carries out the instruction at rip exactly: it makes no exit, leaves user or kernel
// mode for no other, and neither saves the flags nor holds back the trap after it. Of a repeated string
// instruction one repetition is carried out; one with many left is said no to.
[[nodiscard]] bool can_step_over(const LinearMemory& memory, const kvm_regs& regs);

// True: it is carried out. False: it raised an exception, which is undone; it must be run natively.
// Two ways, chosen by what the host does (docs/hosts.md):
// - KVM_GUESTDBG_SINGLESTEP, where that ends in KVM_EXIT_DEBUG.
// - Where the processor runs user code without KVM's knowing (software KVM), its trap would go to the guest.
// So the guest has no IDT meanwhile:
//   every exception ends in KVM_EXIT_SHUTDOWN, there with all state intact and the vector in
//   KVM_GET_VCPU_EVENTS. (On AMD-V that exit resets the vCPU.)
// Requires: can_step_over(), and that KVM has no event to deliver. Errors: kHost.
// Cost: 30 us in user mode, 9 us in kernel mode on software KVM; 50 to 70 us in the lab.
Result<bool> single_step(KvmVcpu& vcpu);

}  // namespace reprise::vmm
