#include "ept/ownership.h"

#include <bit>

#include "base/check.h"

namespace reprise::ept {
namespace {

constexpr uint32_t bit(VcpuId vcpu) {
  return 1u << vcpu.raw;
}

}  // namespace

Ownership::Ownership(uint64_t pages) : pages_(pages) {}

bool Ownership::begin(PageNumber page, VcpuId vcpu) {
  MutexLock lock(lock_of(page));
  PageState& state = pages_[page.raw];
  if (state.busy_for != kNobody) {
    state.waiting |= bit(vcpu);
    return false;
  }
  state.busy_for = static_cast<uint8_t>(vcpu.raw);
  return true;
}

bool Ownership::try_begin(PageNumber page, VcpuId vcpu) {
  MutexLock lock(lock_of(page));
  PageState& state = pages_[page.raw];
  if (state.busy_for != kNobody) return false;
  state.busy_for = static_cast<uint8_t>(vcpu.raw);
  return true;
}

bool Ownership::is_busy_for(PageNumber page, VcpuId vcpu) const {
  MutexLock lock(lock_of(page));
  return pages_[page.raw].busy_for == vcpu.raw;
}

Ownership::Conflicts Ownership::conflicts(PageNumber page, VcpuId vcpu, Right right) const {
  MutexLock lock(lock_of(page));
  const PageState& state = pages_[page.raw];
  REPRISE_CHECK(state.busy_for == vcpu.raw);
  Conflicts conflicts;
  conflicts.exclusive = state.exclusive;
  conflicts.held_since_ns = state.granted_ns;
  if (right == Right::kWrite) {
    conflicts.holders = state.holders & ~bit(vcpu);
    conflicts.left = Right::kNone;
  } else if (state.exclusive) {
    conflicts.holders = state.holders & ~bit(vcpu);
    conflicts.left = Right::kRead;
  }
  return conflicts;
}

log::Loss Ownership::give_up(PageNumber page, VcpuId holder, Right left) {
  MutexLock lock(lock_of(page));
  PageState& state = pages_[page.raw];
  REPRISE_CHECK(state.busy_for != kNobody && (state.holders & bit(holder)) != 0);
  if (left == Right::kNone) state.holders &= ~bit(holder);
  state.exclusive = false;
  // The ticket is taken under the page's lock: versions and tickets of one page rise together.
  return {next_ticket(), left, {page, state.version++}};
}

log::Gain Ownership::complete(std::span<const PageNumber> pages, VcpuId vcpu, Right right, uint64_t now_ns) {
  // All are busy for this vCPU: nobody else can take a ticket for one of them between here and release().
  log::Gain gain{next_ticket(), right, {}};
  gain.pages.reserve(pages.size());
  for (const PageNumber page : pages) {
    MutexLock lock(lock_of(page));
    PageState& state = pages_[page.raw];
    REPRISE_CHECK(state.busy_for == vcpu.raw);
    REPRISE_CHECK(right == Right::kWrite ? (state.holders & ~bit(vcpu)) == 0
                                         : !state.exclusive || state.holders == bit(vcpu));
    state.holders |= bit(vcpu);
    state.exclusive = right == Right::kWrite;
    state.granted_ns = now_ns;
    gain.pages.push_back({page, state.version++});
  }
  return gain;
}

std::optional<VcpuId> Ownership::release(PageNumber page, VcpuId vcpu) {
  MutexLock lock(lock_of(page));
  PageState& state = pages_[page.raw];
  REPRISE_CHECK(state.busy_for == vcpu.raw);
  if (state.waiting == 0) {
    state.busy_for = kNobody;
    return std::nullopt;
  }
  // Round robin from the one after us: with at most 32 waiting, nobody waits for more than 31 others.
  const auto turned = std::rotr(state.waiting, static_cast<int>(vcpu.raw + 1));
  const auto next = (static_cast<uint32_t>(std::countr_zero(turned)) + vcpu.raw + 1) % 32;
  state.waiting &= ~(1u << next);
  state.busy_for = static_cast<uint8_t>(next);
  return VcpuId(next);
}

bool Ownership::is_wanted_elsewhere(PageNumber page, VcpuId vcpu) const {
  MutexLock lock(lock_of(page));
  const PageState& state = pages_[page.raw];
  const bool busy = state.busy_for != kNobody && state.busy_for != vcpu.raw;
  return busy || ((state.holders | state.waiting) & ~(1u << vcpu.raw)) != 0;
}

Ownership::Holders Ownership::holders(PageNumber page) const {
  MutexLock lock(lock_of(page));
  const PageState& state = pages_[page.raw];
  return {state.holders, state.exclusive, state.version};
}

}  // namespace reprise::ept
