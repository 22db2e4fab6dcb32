#include "vmm/clock/rare_addresses.h"

#include <algorithm>
#include <utility>

#include "base/time.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kLeastNs = 200'000;         // 5,000 times a second
constexpr uint64_t kForgetNs = 4'000'000'000;  // programs do something else after a while
constexpr size_t kMost = 64;
constexpr uint64_t kShare = 3;  // as much executing between two of them as each costs
constexpr unsigned kTimes = 5;
constexpr uint64_t kSurelyNs = 200'000'000;

}  // namespace

void RareAddresses::try_addresses(uint64_t cr3, std::span<const Gva> addresses) {
  const uint64_t now = thread_ns();
  if (cr3 != cr3_ || now - forgotten_ns_ > kForgetNs) {
    cr3_ = cr3;
    known_.clear();
    forgotten_ns_ = now;
  }
  for (const Gva address : addresses) {
    if (known_.size() == kMost) break;
    known_.try_emplace(address, Address{.since_ns = ran_ns_});
  }
  // How often the program came to them before is too old to count with.
  if (!trying_) {
    since_ns_ = 0;
    for (auto& [address, state] : known_) state = {.since_ns = ran_ns_, .period_ns = state.period_ns};
  }
  list();
}

// Those that are seldom, and those of which nothing is known; and where none is seldom, the best of the
// others, if it is good enough.
void RareAddresses::list() {
  addresses_.clear();
  best_.reset();
  bool seldom = false;
  for (const auto& [address, state] : known_) {
    const bool is_known = state.period_ns != 0;
    if (!is_known || is_seldom(state)) addresses_.push_back(address);
    seldom |= is_known && is_seldom(state);
    if (is_known && (!best_.has_value() || state.period_ns > known_[*best_].period_ns)) best_ = address;
  }
  if (seldom || (best_.has_value() && known_[*best_].period_ns < std::max(kLeastNs, cost_ns())))
    best_.reset();
  if (best_.has_value()) addresses_.push_back(*best_);
  trying_ = !addresses_.empty();
}

void RareAddresses::runs() {
  const uint64_t now = thread_ns();
  if (since_ns_ != 0) handling_ns_ = (handling_ns_ + (now - since_ns_)) / 2;
  since_ns_ = now;
}

void RareAddresses::stands() {
  const uint64_t now = thread_ns();
  const uint64_t ran = now - since_ns_;
  exit_ns_ = std::min(exit_ns_, ran);
  ran_ns_ += ran - exit_ns_;
  since_ns_ = now;
}

bool RareAddresses::is_seldom(const Address& address) const {
  return address.period_ns >= std::max(kLeastNs, kShare * cost_ns());
}

// On a busy host, any time may seem long: the shortest of some says more than their mean.
RareAddresses::Verdict RareAddresses::came_to(Gva address) {
  Address& state = known_[address];
  if (address == best_ || (state.period_ns != 0 && is_seldom(state))) return Verdict::kSeldom;
  const uint64_t passed = ran_ns_ - std::exchange(state.since_ns, ran_ns_);
  if (++state.times > 1) state.shortest_ns = std::min(state.shortest_ns, passed);
  if (state.times < kTimes && passed < kSurelyNs) return Verdict::kUnknown;
  state.period_ns = std::clamp<uint64_t>(state.shortest_ns, 1, std::max<uint64_t>(passed, 1));
  if (is_seldom(state)) return Verdict::kSeldom;
  list();
  return Verdict::kOften;
}

}  // namespace reprise::vmm
