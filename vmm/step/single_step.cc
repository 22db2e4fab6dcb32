#include "vmm/step/single_step.h"

#include <optional>

#include "vmm/host/processor.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kDebugVector = 1;

Status forget_trace(KvmVcpu& vcpu) {
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  if ((regs.rflags & (x86::kTraceFlag | x86::kResumeFlag)) == 0) return {};
  regs.rflags &= ~(x86::kTraceFlag | x86::kResumeFlag);
  return vcpu.set_registers(regs);
}

// Software KVM, user mode.
Result<StepOutcome> step_without_idt(KvmVcpu& vcpu, const kvm_sregs& sregs) {
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  kvm_sregs bare = sregs;
  bare.idt.limit = 0;
  TRY(vcpu.set_special_registers(bare));
  regs.rflags |= x86::kTraceFlag;
  TRY(vcpu.set_registers(regs));
  std::optional<uint8_t> vector;
  ExitKind exit = ExitKind::kInterrupted;
  while (exit == ExitKind::kInterrupted && !vector.has_value()) {
    TRY_ASSIGN(exit, vcpu.run());
    TRY_ASSIGN(const kvm_vcpu_events events, vcpu.events());
    // After the shutdown the exception is neither pending nor injected any more; its number is left.
    if (exit == ExitKind::kShutdown || events.exception.injected != 0 || events.exception.pending != 0)
      vector = events.exception.nr;
  }
  TRY_ASSIGN(kvm_vcpu_events events, vcpu.events());
  events.exception = {};
  TRY(vcpu.set_events(events));
  TRY_ASSIGN(kvm_sregs after, vcpu.special_registers());
  after.idt = sregs.idt;
  after.cr2 = sregs.cr2;
  TRY(vcpu.set_special_registers(after));
  TRY(forget_trace(vcpu));
  if (!vector.has_value()) return StepOutcome{.carried_out = false, .exit = exit};
  return StepOutcome{.carried_out = *vector == kDebugVector, .exit = {}};
}

}  // namespace

Result<StepOutcome> single_step(KvmVcpu& vcpu, const StepPlan& plan) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!traces_user_mode() && sregs.ss.dpl == 3) {
    if (sregs.cs.l == 0) return StepOutcome();
    return step_without_idt(vcpu, sregs);
  }
  TRY_ASSIGN(const ExitKind exit, vcpu.try_step());
  TRY(forget_trace(vcpu));
  if (exit != ExitKind::kDebug) return StepOutcome{.carried_out = false, .exit = exit};
  TRY_ASSIGN(const kvm_regs after, vcpu.registers());
  if (!plan.next_rip.has_value() || after.rip == plan.next_rip)
    return StepOutcome{.carried_out = true, .exit = {}};
  return fail(ErrorCode::kHost,
              "a single step ended at {:#x} instead of {:#x}: an exception that was not foreseen", after.rip,
              *plan.next_rip);
}

}  // namespace reprise::vmm
