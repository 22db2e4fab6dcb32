// One instruction of a vCPU by a trace, and nothing that the guest could tell it by.
#pragma once

#include "base/result.h"
#include "vmm/kvm/kvm.h"
#include "vmm/step/step_plan.h"

namespace reprise::vmm {

// Nothing is done where it raised an exception, which is undone, or where this host cannot trace it.
// Two ways, chosen by what the host does (docs/hosts.md):
// - KVM_GUESTDBG_SINGLESTEP, where that ends in KVM_EXIT_DEBUG.
// - Where the processor runs user code without KVM's knowing (software KVM), its trap would go to the guest.
// So the guest has no IDT meanwhile:
//   every exception ends in KVM_EXIT_SHUTDOWN, there with all state intact and the vector in
//   KVM_GET_VCPU_EVENTS. (On AMD-V that exit resets the vCPU.)
// Requires: `plan` says kTrace of the instruction, and KVM has no event to deliver. Errors: kHost, also where
// it ended elsewhere than at plan.next_rip: in the handler of an exception that was not foreseen.
// Cost: what it is a part of, Timeline::step(), takes 90 to 140 us where KVM is software and in the lab
// (medians; ./dev bench --debug).
Result<StepOutcome> single_step(KvmVcpu& vcpu, const StepPlan& plan);

}  // namespace reprise::vmm
