#include "vmm/step/vcpu_stepper.h"

#include <algorithm>

#include "vmm/kvm/cpu_state.h"
#include "vmm/step/fenced_step.h"
#include "vmm/step/single_step.h"
#include "x86/linear_memory.h"
#include "x86/rflags.h"

namespace reprise::vmm {

Result<VcpuStepper::Outcome> VcpuStepper::step(Ticks until) {
  KvmVcpu& kvm = context_.kvm();
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  if ((regs.rflags & x86::kTraceFlag) != 0) return step_coarsely();  // the guest traces itself
  const auto set = faults_.touched_pages(regs, sregs);
  if (!set || !set->complete || !faults_.missing(*set).empty()) return Outcome(EnterAsAlways{});
  TRY_ASSIGN(const kvm_vcpu_events events, kvm.events());
  auto plan = plan_delivery(events);
  if (!plan.has_value()) {
    if (interrupt_window_is_open(regs, events)) return Outcome(EnterAsAlways{});
    TRY_ASSIGN(plan, plan_step(kvm, x86::LinearMemory(paging_of(sregs), context_.memory()), regs, sregs));
    const auto outside = [&](const PageRight& access) {
      return access.page.raw >= context_.memory().view().ram_pages();
    };
    const bool may_stop = set->exception.has_value() || std::ranges::any_of(set->pages(), outside);
    if (may_stop && plan->method == StepMethod::kTrace) plan->method = StepMethod::kFence;
  }
  if (plan->method == StepMethod::kNone) return step_coarsely();
  context_.parts().positioner.arm({.until = until});
  StepOutcome outcome;
  if (plan->method == StepMethod::kTrace) {
    TRY_ASSIGN(outcome, single_step(kvm, *plan));
  }
  if (!outcome.carried_out && !outcome.exit.has_value()) {
    if (context_.journal().is_over()) return Outcome(MustLeave{});
    TRY_ASSIGN(outcome, step_in_fence(kvm, context_.memory(), *plan));
  }
  if (outcome.exit.has_value()) return Outcome(*outcome.exit);
  if (!outcome.carried_out) return step_coarsely();
  TRY(leave_shadow(events, plan->shadow));
  return Outcome(Stepped{});
}

// Nothing can carry it out alone.
VcpuStepper::Outcome VcpuStepper::step_coarsely() {
  ++coarse_steps_;
  return EnterAsAlways{};
}

// Whether an interrupt that waits can be taken here: that is a stop, and the next thing that happens.
bool VcpuStepper::interrupt_window_is_open(const kvm_regs& regs, const kvm_vcpu_events& events) const {
  const bool waiting =
      context_.parts().apic.pending_vector().has_value() || context_.parts().apic.nmi_pending();
  return waiting && context_.parts().positioner.uses_interrupt_windows() &&
         (regs.rflags & x86::kInterruptFlag) != 0 && events.interrupt.shadow == 0;
}

// A step ends with an exit, and hosts differ in what shadow that leaves on the next instruction.
Status VcpuStepper::leave_shadow(const kvm_vcpu_events& before, uint8_t shadow) {
  if (shadow == 0 && before.interrupt.shadow == 0) return {};
  KvmVcpu& kvm = context_.kvm();
  TRY_ASSIGN(kvm_vcpu_events events, kvm.events());
  events.interrupt.shadow = shadow;
  events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
  return kvm.set_events(events);
}

}  // namespace reprise::vmm
