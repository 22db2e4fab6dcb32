#include "vmm/vcpu/vcpu_context.h"

#include <algorithm>

#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

// At a safepoint one register holds the count (docs/guest-abi.md).
uint64_t digest_without_count(kvm_regs regs, Ticks count) {
  for (auto* const reg :
       {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx, &regs.rsi, &regs.rdi, &regs.rbp, &regs.r8, &regs.r9,
        &regs.r10, &regs.r11, &regs.r12, &regs.r13, &regs.r14, &regs.r15})
    if (*reg == count.raw) *reg = 0;
  return digest_registers(regs, 0);
}

}  // namespace

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
  if (journal_->wants_registers())
    journal_->look_at(Gva(regs.rip), digest_without_count(regs, parts_.positioner.ticks()));
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

Result<Flow> VcpuContext::ask(std::span<const PageRight> needed, bool again) {
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

// The turn can be lost while the vCPU waits for pages, and pages while it waits for the turn.
Result<Flow> VcpuContext::acquire(std::span<const PageRight> needed, bool again) {
  const ept::View& view = parts_.memory.view();
  const auto allowed = [&](const PageRight& need) { return view.allows(need.page, need.right); };
  for (;; again = true) {
    TRY_GO(take_turn());
    if (view.is_alone() || std::ranges::all_of(needed, allowed)) return Flow::kGo;
    TRY_GO(ask(needed, again));
    if (has_turn()) return Flow::kGo;
  }
}

Result<Flow> VcpuContext::acquire(PageNumber page, Right right) {
  const PageRight need{page, right};
  if (holds(need)) return Flow::kGo;
  return acquire({&need, 1}, false);
}

bool VcpuContext::holds(const PageRight& need) const {
  return has_turn() && parts_.memory.view().allows(need.page, need.right);
}

bool VcpuContext::has_turn() const {
  return parts_.memory.view().right(parts_.first_token + kTurnToken) >=
         parts_.scheduler.turn_needed(parts_.id);
}

Result<Flow> VcpuContext::take_turn() {
  const PageRight turn{parts_.first_token + kTurnToken, parts_.scheduler.turn_needed(parts_.id)};
  return has_turn() ? Result<Flow>(Flow::kGo) : ask({&turn, 1}, false);
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
