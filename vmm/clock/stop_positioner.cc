#include "vmm/clock/stop_positioner.h"

#include "base/time.h"
#include "vmm/clock/likely_rare.h"
#include "vmm/clock/spin.h"
#include "vmm/clock/user_state.h"
#include "vmm/guest/linux/program_name.h"
#include "vmm/kvm/cpu_state.h"

namespace reprise::vmm {
namespace {

// The address at which replay has to stop the vCPU next, if it is one.
Result<std::optional<log::UserBreakpoint>> sought(Journal& journal) {
  TRY_ASSIGN(const auto next, journal.next_user_stop());
  const auto* at = next.has_value() ? std::get_if<log::UserBreakpoint>(&*next) : nullptr;
  return at == nullptr ? std::nullopt : std::optional(*at);
}

}  // namespace

Result<Interruption> StopPositioner::interrupted(Journal& journal) {
  TRY_ASSIGN(const auto next, journal.next_user_stop());
  if (const auto* spin = next.has_value() ? std::get_if<log::Spin>(&*next) : nullptr) {
    TRY_ASSIGN(const bool there, step_into_spin(kvm_, memory_, *spin));
    return there ? Interruption(*spin) : Interruption(BetweenPositions{});
  }
  if (!journal.may_stop_in_user_mode()) return Interruption(BetweenPositions{});
  if (!rare_.is_trying()) {
    TRY_ASSIGN(const auto spin, find_spin(kvm_, memory_));
    if (spin.has_value()) return Interruption(*spin);
  }
  TRY_ASSIGN(const kvm_regs regs, kvm_.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm_.special_registers());
  if (!is_user_64(sregs)) return Interruption(BetweenPositions{});
  stays_in_user_mode(regs, sregs);
  if (breakpoints_.has_value())
    rare_.try_addresses(sregs.cr3, likely_rare(cpu_state(regs, sregs), {paging_of(sregs), memory_}));
  return Interruption(BetweenPositions{});
}

void StopPositioner::stays_in_user_mode(const kvm_regs& regs, const kvm_sregs& sregs) {
  const auto ns = flat_.kept(thread_ns());
  if (!ns.has_value()) return;
  flat_.set_longest({program_name({paging_of(sregs), memory_}, Gva(regs.rsp)), Gva(regs.rip), *ns});
}

Status StopPositioner::entering(Journal& journal) {
  if (!breakpoints_.has_value()) return {};
  TRY_ASSIGN(const auto at, sought(journal));
  if (at.has_value())
    TRY(breakpoints_->put({&at->address, 1}, UserBreakpoints::When::kAlsoLater));
  else if (rare_.is_trying())
    TRY(breakpoints_->put(rare_.addresses(), UserBreakpoints::When::kNow));
  if (!breakpoints_->are_in_user_mode()) {
    rare_.leave();
    return {};
  }
  page_.stop_at(Ticks(0));  // where the kernel is entered
  if (rare_.is_trying()) rare_.runs();
  return {};
}

Result<BreakpointExit> StopPositioner::exited(ExitKind exit, Journal& journal) {
  if (exit != ExitKind::kInterrupted && exit != ExitKind::kFault) flat_.left();
  if (!breakpoints_.has_value() || !breakpoints_->are_put()) return BreakpointExit(OtherExit{});
  if (rare_.is_trying()) rare_.stands();
  breakpoints_->take_out();
  TRY_ASSIGN(const auto hit, breakpoints_->find(exit));
  if (const auto* address = std::get_if<Gva>(&hit)) return came_to(*address, journal);
  if (std::holds_alternative<UserBreakpoints::Returned>(hit)) return BreakpointExit(BetweenPositions{});
  // The kernel is entered, or another stop is made: what it is like afterwards, nobody knows.
  if (exit != ExitKind::kInterrupted && exit != ExitKind::kFault) rare_.leave();
  return BreakpointExit(OtherExit{});
}

Result<BreakpointExit> StopPositioner::came_to(Gva address, Journal& journal) {
  TRY_ASSIGN(const auto at, sought(journal));
  if (at.has_value()) {
    TRY_ASSIGN(const bool there, is_at(kvm_, memory_, *at));
    return there ? BreakpointExit(*at) : BreakpointExit(StepOver{});
  }
  if (!journal.may_stop_in_user_mode()) {
    rare_.leave();
    return BreakpointExit(BetweenPositions{});
  }
  switch (rare_.came_to(address)) {
    case RareAddresses::Verdict::kOften:
      return BreakpointExit(BetweenPositions{});
    case RareAddresses::Verdict::kUnknown:
      return BreakpointExit(StepOver{});
    case RareAddresses::Verdict::kSeldom:
      break;
  }
  rare_.leave();
  TRY_ASSIGN(const log::UserBreakpoint here, name_place(kvm_, memory_));
  return BreakpointExit(here);
}

Result<std::optional<log::UserBreakpoint>> StopPositioner::is_there(Journal& journal) {
  std::optional<log::UserBreakpoint> none;
  if (!breakpoints_.has_value()) return none;
  TRY_ASSIGN(const auto at, sought(journal));
  if (!at.has_value()) return none;
  TRY_ASSIGN(const bool there, is_at(kvm_, memory_, *at));
  return there ? at : none;
}

}  // namespace reprise::vmm
