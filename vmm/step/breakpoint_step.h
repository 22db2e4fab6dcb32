// One instruction carried out natively: halts stand at all places where it can lead to.
#pragma once

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"
#include "vmm/step/step_plan.h"

namespace reprise::vmm {

// KVM's trace and the processor's are not exact over instructions that change the flow of control or the
// flags, nor over exceptions. So those run as they are, the guest's processor doing all that it does, to a
// HLT byte: behind the instruction, where it branches to, at the entry of each exception's handler. In user
// mode HLT is a general-protection fault; the halt at its handler shows that, and what delivery has pushed is
// put back. The bytes are there for this one entry, and no other vCPU may run meanwhile.
//
// Nothing is done where a breakpoint cannot be put without a trace (a page-table entry on the way
// was never used), or the instruction reads a page that a byte would be on. Requires: as for KvmVcpu::run();
// `plan` for where the vCPU stands. Errors: kHost.
Result<StepOutcome> step_between_breakpoints(KvmVcpu& vcpu, ViewMemory& memory, const StepPlan& plan);

}  // namespace reprise::vmm
