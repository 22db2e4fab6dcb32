// A vCPU one instruction at a time.
#include <algorithm>

#include "vmm/kvm/cpu_state.h"
#include "vmm/step/fenced_step.h"
#include "vmm/step/single_step.h"
#include "vmm/vcpu.h"
#include "x86/rflags.h"

namespace reprise::vmm {

Result<Vcpu::Advance> Vcpu::step(Ticks next) {
  stepped_ = false;
  step_until_ = next;
  auto advanced = advance();
  step_until_.reset();
  return advanced;
}

// True: one instruction has been carried out or an event been delivered, and nothing else has happened; then
// stepped_. Or the instruction has stopped, and that is dealt with. False: this one must be entered as
// always; it makes a stop, or cannot be stepped over.
Result<bool> Vcpu::step_over() {
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  if ((regs.rflags & x86::kTraceFlag) != 0) return step_coarsely();  // the guest traces itself
  const auto set = touched_pages(regs, sregs);
  if (!set || !set->complete || !missing(*set).empty()) return false;
  TRY_ASSIGN(const kvm_vcpu_events events, parts_.kvm.events());
  auto plan = plan_delivery(events);
  if (!plan.has_value()) {
    if (interrupt_window_is_open(regs, events)) return false;
    TRY_ASSIGN(plan, plan_step(parts_.kvm, x86::LinearMemory(paging_of(sregs), parts_.memory), regs, sregs));
    const auto outside = [&](const PageRight& access) {
      return access.page.raw >= parts_.memory.view().ram_pages();
    };
    const bool may_stop = set->exception.has_value() || std::ranges::any_of(set->pages(), outside);
    if (may_stop && plan->method == StepMethod::kTrace) plan->method = StepMethod::kFence;
  }
  if (plan->method == StepMethod::kNone) return step_coarsely();
  parts_.clock.stop_at(*step_until_);
  parts_.kvm.shared().request_interrupt_window = 0;
  StepOutcome outcome;
  if (plan->method == StepMethod::kTrace) {
    TRY_ASSIGN(outcome, single_step(parts_.kvm, *plan));
  }
  if (!outcome.carried_out && !outcome.exit.has_value()) {
    leaving_ = journal_->is_over();
    if (leaving_) return true;
    TRY_ASSIGN(outcome, step_in_fence(parts_.kvm, parts_.memory, *plan));
  }
  if (outcome.exit.has_value()) {
    TRY(*outcome.exit == ExitKind::kInterrupted ? interrupted() : carry_out(*outcome.exit));
    return true;
  }
  stepped_ = outcome.carried_out;
  if (!stepped_) return step_coarsely();
  after_ = After::kFault;
  TRY(leave_shadow(events, plan->shadow));
  return true;
}

// Nothing can carry it out alone.
bool Vcpu::step_coarsely() {
  ++coarse_steps_;
  return false;
}

// Whether an interrupt that waits can be taken here: that is a stop, and the next thing that happens.
bool Vcpu::interrupt_window_is_open(const kvm_regs& regs, const kvm_vcpu_events& events) const {
  const bool waiting = parts_.apic.pending_vector().has_value() || parts_.apic.nmi_pending();
  return waiting && parts_.clock.kicked_stop() != KickedStop::kAtTick &&
         (regs.rflags & x86::kInterruptFlag) != 0 && events.interrupt.shadow == 0;
}

// A step ends with an exit, and hosts differ in what shadow that leaves on the next instruction.
Status Vcpu::leave_shadow(const kvm_vcpu_events& before, uint8_t shadow) {
  if (shadow == 0 && before.interrupt.shadow == 0) return {};
  TRY_ASSIGN(kvm_vcpu_events events, parts_.kvm.events());
  events.interrupt.shadow = shadow;
  events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
  return parts_.kvm.set_events(events);
}

}  // namespace reprise::vmm
