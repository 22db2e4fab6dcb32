#include "vmm/vcpu/vcpu_context.h"

#include <algorithm>

#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/rflags.h"

namespace reprise::vmm {

void VcpuContext::count_stop() {
  ++stops_;
  ++statistics_.stops;
  visible_stops_.store(stops_, std::memory_order_relaxed);
  journal_->arrive(position());
}

// A vCPU that shares page tables with others where the host caches them unseen (shadow paging) would run on
// stale translations. Looked for at every stop: a shared table must be linked before anybody changes it, and
// whoever is told of a change is stopped first.
Status VcpuContext::check_tables() {
  if (!parts_.own_tables.has_value()) return {};
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  const auto shared = x86::find_table(paging_of(sregs), parts_.memory, [&](PageNumber page) {
    return !parts_.own_tables->contains(address_of(page));
  });
  if (!shared.has_value()) return {};
  return fail(ErrorCode::kHost,
              "vCPU {} has a page table at {:#x}, which other vCPUs may change, and this host would not "
              "notice (shadow paging, one VM per vCPU): "
              "keep page tables in private pages (docs/guest-abi.md), or use a host with nested paging",
              parts_.id.raw, address_of(*shared).raw);
}

Status VcpuContext::end_stop(bool raises) {
  TRY(check_tables());
  if (parts_.kernel != nullptr) TRY(parts_.kernel->settle(exited()));
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  // An exception that waits goes first: KVM forgets an interrupt that is given to it as well, and it would
  // stay in service for ever.
  interrupts_enabled_ = (regs.rflags & x86::kInterruptFlag) != 0 && !raises;
  standing_ = AtPosition{};
  ++completed_stops_;
  if (stops_ == compared_stops_)
    return {};  // a trap: nothing to compare, replay makes only those at which something happens
  compared_stops_ = stops_;
  digest_ = digest_registers(regs, digest_);
  TRY(journal_->stopped(digest_));
  if (parts_.digest_every == 0 || stops_ % parts_.digest_every != 0) return {};
  TRY_ASSIGN(const uint64_t machine, parts_.digest());
  return journal_->compared_machine(machine);
}

Status VcpuContext::guest_error(const std::string& what) {
  count_stop();
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  journal_->stop_machine(
      {StopReason::kGuestError, 0, fmt::format("vCPU {}: {} (rip {:#x})", parts_.id.raw, what, regs.rip)});
  halted_ = true;
  return end_stop();
}

Result<Flow> VcpuContext::acquire(std::span<const PageRight> needed, bool again) {
  TRY_ASSIGN(const Acquired acquired, journal_->acquire(needed, again));
  switch (acquired) {
    case Acquired::kGranted:
      return Flow::kGo;
    case Acquired::kStopping:
      return Flow::kLeave;
    case Acquired::kLater:
      break;
  }
  return Flow::kLater;
}

Result<Flow> VcpuContext::acquire(PageNumber page, Right right) {
  if (parts_.memory.view().allows(page, right)) return Flow::kGo;
  const PageRight need{page, right};
  return acquire({&need, 1}, false);
}

Result<Flow> VcpuContext::take_turn() {
  if (!needs_turn()) return Flow::kGo;
  return acquire(parts_.first_token + kTurnToken, Right::kWrite);
}

void VcpuContext::perform(Effects effects) {
  for (const Effect& effect : parts_.board.route(std::move(effects))) {
    if (const auto* stop = std::get_if<StopMachine>(&effect))
      journal_->stop_machine({StopReason::kGuestExit, stop->status, {}});
    else
      journal_->perform(effect);
  }
}

void VcpuContext::visit(StateVisitor& visitor) {
  visitor("stops", stops_);
  visitor("compared_stops", compared_stops_);
  visitor("digest", digest_);
  visitor("halted", halted_);
  visitor("interrupts_enabled", interrupts_enabled_);
  visitor.aside([&] { visitor("statistics", statistics_); });
  enum : uint8_t { kAtPosition, kAtFault, kBetweenPositions };
  uint8_t stands = kAtPosition;
  std::vector<PageRight> needed;
  if (const auto* fault = std::get_if<AtFault>(&standing_)) {
    stands = kAtFault;
    needed = fault->needed;
  }
  if (std::holds_alternative<BetweenPositions>(standing_)) stands = kBetweenPositions;
  visitor("stands", stands);
  visitor("needed", needed);
  const uint64_t pages = parts_.memory.view().rights().size();
  visitor.require(stands <= kBetweenPositions, "stands");
  visitor.require(std::ranges::all_of(needed, [&](const auto& need) { return need.page.raw < pages; }),
                  "needed");
  standing_ = AtPosition{};
  if (stands == kAtFault) standing_ = AtFault{std::move(needed)};
  if (stands == kBetweenPositions) standing_ = BetweenPositions{};
  visible_stops_.store(stops_, std::memory_order_relaxed);
}

}  // namespace reprise::vmm
