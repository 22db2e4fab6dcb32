#include "vmm/clock/branch_positioner.h"

#include "vmm/register_digest.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

// An interrupt could not be put in, or one is on its way in: a place in the middle of something.
Result<bool> is_between_instructions(const KvmVcpu& kvm) {
  TRY_ASSIGN(const kvm_vcpu_events events, kvm.events());
  return events.interrupt.shadow == 0 && events.interrupt.injected == 0 && events.exception.injected == 0 &&
         events.exception.pending == 0 && events.nmi.injected == 0 &&
         (events.nmi.pending == 0 || events.nmi.masked != 0);
}

Result<log::Preemption> place_of(KvmVcpu& kvm) {
  TRY_ASSIGN(kvm_regs regs, kvm.registers());
  regs.rflags &= ~x86::kTraceFlag;  // of single steps
  return log::Preemption{Gva(regs.rip), digest_registers(regs, 0)};
}

}  // namespace

void BranchPositioner::arm(const Limit& limit) {
  limit_ = limit;
  kvm_.shared().request_interrupt_window = limit.interrupt_waits ? 1 : 0;
  const uint64_t early = limit.exact ? early_ : 0;
  const uint64_t now = counter_.count();
  const bool runs = limit.until.raw > now + early && limit.until.raw - now - early >= kShortestPeriod;
  signalled_ = runs && limit.until != kNoTick;
  counter_.signal_at(signalled_ ? std::optional(limit.until.raw - early) : std::nullopt);
  runs ? kvm_.forced_exit().allow() : kvm_.forced_exit().request();
}

Result<Interruption> BranchPositioner::interrupted(Journal& journal) {
  TRY_ASSIGN(const log::Preemption here, place_of(kvm_));
  return limit_.exact ? seek(journal, here) : stop(journal, here);
}

// Where the log says.
Result<Interruption> BranchPositioner::seek(Journal& journal, const log::Preemption& here) {
  if (journal.kicked()) return Interruption(AnyPlace{});
  const uint64_t now = counter_.count(), until = limit_.until.raw;
  if (signalled_ && until < now)
    return fail(
        ErrorCode::kHost,
        "the branch counter's interrupt came {} branches late, more than the {} that it had been seen "
        "to; replay again: it may do better on a quieter host",
        now - until + early_, early_);
  TRY_ASSIGN(const auto next, journal.next_user_stop());
  if (const auto* wanted = next.has_value() ? std::get_if<log::Preemption>(&*next) : nullptr) {
    TRY_ASSIGN(const bool whole, is_between_instructions(kvm_));
    if (whole && *wanted == here) return Interruption(here);
    return Interruption(StepOver{});
  }
  if (until == now)
    return Interruption(AnyPlace{});  // what is to be done here is no stop: the journal says so
  if (until == kNoTick.raw || until - now >= early_ + kShortestPeriod)
    return Interruption(BetweenPositions{});
  return Interruption(StepOver{});
}

// Where somebody wants the vCPU.
Result<Interruption> BranchPositioner::stop(Journal& journal, const log::Preemption& here) {
  const uint64_t now = counter_.count(), until = limit_.until.raw;
  if (!journal.may_stop_in_user_mode() && now < until)
    return until - now >= kShortestPeriod ? Interruption(BetweenPositions{}) : Interruption(StepOver{});
  // An instruction that faulted is to be carried out before its page is lost, and from stop to stop the guest
  // gets on.
  TRY_ASSIGN(const bool whole, is_between_instructions(kvm_));
  const Place place{now, here.rip.raw};
  if (!whole || stood_ == place) return Interruption(StepOver{});
  stood_ = place;
  return Interruption(here);
}

Result<BreakpointExit> BranchPositioner::exited(ExitKind exit, Journal& /*journal*/) {
  if (exit != ExitKind::kInterrupted) {
    TRY_ASSIGN(const kvm_regs regs, kvm_.registers());
    stood_ = Place{counter_.count(), regs.rip};
  }
  return BreakpointExit(OtherExit{});
}

}  // namespace reprise::vmm
