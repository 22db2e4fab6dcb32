#include "vmm/step/vcpu_stepper.h"

#include <algorithm>
#include <array>

#include "vmm/kvm/cpu_state.h"
#include "vmm/step/breakpoint_step.h"
#include "vmm/step/single_step.h"
#include "x86/instruction.h"
#include "x86/linear_memory.h"
#include "x86/rflags.h"

namespace reprise::vmm {

Result<std::optional<VcpuStepper::Planned>> VcpuStepper::plan(const kvm_regs& regs, bool window_may_open) {
  KvmVcpu& kvm = context_.kvm();
  std::optional<Planned> none;
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  const auto set = faults_.touched_pages(regs, sregs);
  if (!set || !set->complete || !faults_.missing(*set).empty()) return none;
  TRY(faults_.prepare(*set));
  TRY_ASSIGN(const kvm_vcpu_events events, kvm.events());
  if (const auto delivery = plan_delivery(events)) return std::optional(Planned{*delivery, events});
  if (window_may_open && interrupt_window_is_open(regs, events)) return none;
  TRY_ASSIGN(auto plan, plan_step(kvm, x86::LinearMemory(paging_of(sregs), context_.memory()), regs, sregs));
  const auto outside = [&](const PageRight& access) {
    return access.page.raw >= context_.memory().view().ram_pages();
  };
  const bool may_stop = set->exception.has_value() || std::ranges::any_of(set->pages(), outside);
  if (may_stop && plan.method == StepMethod::kTrace) plan.method = StepMethod::kBreakpoints;
  return std::optional(Planned{std::move(plan), events});
}

Result<StepOutcome> VcpuStepper::carry_out(const Planned& planned) {
  KvmVcpu& kvm = context_.kvm();
  kvm.shared().request_interrupt_window = 0;
  StepOutcome outcome;
  if (planned.plan.method == StepMethod::kTrace) {
    TRY_ASSIGN(outcome, single_step(kvm, planned.plan));
  }
  if (!outcome.carried_out && !outcome.exit.has_value() && !context_.journal().is_over()) {
    TRY_ASSIGN(outcome, step_between_breakpoints(kvm, context_.memory(), planned.plan));
  }
  if (outcome.carried_out) TRY(leave_shadow(planned.events, planned.plan.shadow));
  return outcome;
}

Result<VcpuStepper::Outcome> VcpuStepper::step(Ticks until) {
  TRY_ASSIGN(const kvm_regs regs, context_.kvm().registers());
  if ((regs.rflags & x86::kTraceFlag) != 0) return step_coarsely();  // the guest traces itself
  TRY_ASSIGN(const auto planned, plan(regs, true));
  if (!planned.has_value()) return Outcome(EnterAsAlways{});
  if (planned->plan.method == StepMethod::kNone) return step_coarsely();
  context_.parts().positioner.arm({.until = until});
  TRY_ASSIGN(const StepOutcome outcome, carry_out(*planned));
  if (outcome.exit.has_value()) return Outcome(*outcome.exit);
  if (outcome.carried_out) return Outcome(Stepped{});
  if (context_.journal().is_over()) return Outcome(MustLeave{});
  return step_coarsely();
}

Result<VcpuStepper::Window> VcpuStepper::step_out_of_shadow() {
  // Code in which each instruction has such bytes before it for ever would keep the interrupt out for ever.
  constexpr unsigned kMost = 64;
  for (unsigned steps = 0;; ++steps) {
    TRY_ASSIGN(const kvm_regs regs, context_.kvm().registers());
    if ((regs.rflags & x86::kInterruptFlag) == 0) return Window();
    TRY_ASSIGN(const bool in_shadow, may_be_in_shadow(regs));
    if (!in_shadow || steps == kMost || (regs.rflags & x86::kTraceFlag) != 0) return Window{.is_open = true};
    TRY_ASSIGN(const auto planned, plan(regs, false));
    if (!planned.has_value() || planned->plan.method == StepMethod::kNone) return Window{.is_open = true};
    TRY_ASSIGN(const StepOutcome outcome, carry_out(*planned));
    if (outcome.exit.has_value()) return Window{.exit = outcome.exit};
    if (!outcome.carried_out) return Window{.is_open = true};
  }
}

// By the bytes before rip, or by KVM's word after a step that has told it so.
Result<bool> VcpuStepper::may_be_in_shadow(const kvm_regs& regs) const {
  // Source: Intel SDM vol. 2, STI and MOV (8E /r, with SS as the register that is loaded).
  constexpr uint8_t kSti = 0xfb, kMovToSegment = 0x8e, kSsFromRegister = 0xd0, kOperand = 0x07;
  TRY_ASSIGN(const kvm_sregs sregs, context_.kvm().special_registers());
  TRY_ASSIGN(const kvm_vcpu_events events, context_.kvm().events());
  if (events.interrupt.shadow != 0) return true;
  const x86::LinearMemory memory(paging_of(sregs), context_.memory());
  std::array<uint8_t, 2> before{};
  for (size_t i = 0; i < before.size(); ++i) {
    const Gva at(x86::code_address(cpu_state(regs, sregs), regs.rip - before.size() + i));
    (void)memory.read(at, {&before[i], 1});
  }
  return before[1] == kSti || (before[0] == kMovToSegment && (before[1] & ~kOperand) == kSsFromRegister);
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
