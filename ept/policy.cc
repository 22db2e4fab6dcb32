#include "ept/policy.h"

#include <algorithm>
#include <bit>
#include <charconv>

namespace reprise::ept {
namespace {

// Of the time that two vCPUs fight for a page, at most one part in kHoldTransfers + 1 goes into passing it.
constexpr uint64_t kHoldTransfers = 4;
// Bounds the wait of a vCPU that only wants to hand over (a lock, a message), where a measurement caught a
// busy host.
constexpr uint64_t kLongestHoldNs = 10'000'000;
// 32 vCPUs that take turns of a hold each come round within some hundred transfers.
constexpr uint64_t kRecentTransfers = 1000;

// Chaos waits for up to 4 or 32 transfers, of no less than this: in that time others take what they want from
// a vCPU and pass it.
constexpr uint64_t kLeastTransferNs = 10'000;
// One stop in so many begins up to 256 stops that are at most so many ticks apart, at half of which the vCPU
// is held back: a bug that needs two switches within few instructions is seldom met otherwise.
constexpr uint64_t kCloselyOneIn = 64;
constexpr uint64_t kCloselyDoublings = 9;
constexpr uint64_t kClosely = 24;

// An hour: what no run waits for, and no overflow as nanoseconds.
constexpr uint64_t kMostMicroseconds = 3'600'000'000;

constexpr std::string_view kKnownChoices =
    "hold=US or hold=auto, block=US, grants=PAGES (a power of two up to 512), and exclusive, together and "
    "domains, each =on or =off";

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMostMicroseconds)
    return std::nullopt;
  return value;
}

bool set_number(PolicyOptions& options, std::string_view name, uint64_t value) {
  if (name == "hold") {
    options.hold_ns = value * 1000;
  } else if (name == "block") {
    options.block_ns = value * 1000;
  } else if (name == "grants" && std::has_single_bit(value) && value <= kMostGranted) {
    options.grants = static_cast<uint32_t>(value);
  } else {
    return false;
  }
  return true;
}

bool set_switch(PolicyOptions& options, std::string_view name, bool on) {
  if (name == "exclusive") {
    options.exclusive = on;
  } else if (name == "together") {
    options.together = on;
  } else if (name == "domains") {
    options.domains = on;
  } else {
    return false;
  }
  return true;
}

bool set_choice(PolicyOptions& options, std::string_view name, std::string_view value) {
  if (name == "hold" && value == "auto") {
    options.hold_ns.reset();
    return true;
  }
  if (value == "on" || value == "off") return set_switch(options, name, value == "on");
  const auto parsed = number(value);
  return parsed.has_value() && set_number(options, name, *parsed);
}

}  // namespace

Result<PolicyOptions> with_choices(PolicyOptions options, std::string_view text) {
  while (!text.empty()) {
    const std::string_view choice = text.substr(0, text.find(','));
    text.remove_prefix(std::min(choice.size() + 1, text.size()));
    const size_t equals = std::min(choice.find('='), choice.size());
    const std::string_view value = choice.substr(std::min(equals + 1, choice.size()));
    if (!set_choice(options, choice.substr(0, equals), value))
      return fail(ErrorCode::kUsage, "no choice \"{}\": known are {}", choice, kKnownChoices);
  }
  return options;
}

Policy::Policy(const PolicyOptions& options, VcpuId vcpu)
    : options_(options), random_(options.chaos.value_or(0) * 0x9e3779b97f4a7c15ull + vcpu.raw) {
  if (!chaotic()) return;
  // No one rate finds every bug: some need many stops, some that a vCPU is held back while others come far.
  early_one_in_ = 1ull << below(4);
  early_doublings_ = 15 + below(6);
  hold_back_doublings_ = kLeastDoublings + below(6);
}

uint64_t Policy::hold_ns() {
  return varied(options_.hold_ns.value_or(std::min(kHoldTransfers * transfer_ns_, kLongestHoldNs)));
}

uint64_t Policy::turn_ns() {
  return varied(kSliceNs);
}

uint64_t Policy::varied(uint64_t usual) {
  if (!chaotic()) return usual;
  // Sometimes nothing, else from a small part of the usual to twice of it: both quick ping-pong and long
  // stays occur, and pages that everybody writes do not make a recording without end.
  return below(4) == 0 ? 0 : (usual / 16) << below(6);
}

void Policy::note_transfer(uint64_t ns) {
  // The first counts in full, later ones an eighth: a slow one among many does not matter, a change of the
  // host does.
  transfer_ns_ = transfer_ns_ == 0 ? ns : transfer_ns_ - transfer_ns_ / 8 + ns / 8;
}

bool Policy::is_recent(uint64_t ns) const {
  return ns < kRecentTransfers * transfer_ns_;
}

// The rates below keep a chaotic recording within a small factor of a quiet one: a page that is dropped costs
// a fault (tens of stops' worth), so only one position in eight drops any.
std::optional<uint64_t> Policy::early_stop() {
  if (!chaotic()) return std::nullopt;
  if (closely_ == 0 && below(kCloselyOneIn) == 0) closely_ = 1ull << below(kCloselyDoublings);
  if (closely_ != 0) {
    --closely_;
    return 1 + below(kClosely);
  }
  if (below(early_one_in_) != 0) return std::nullopt;
  return 1 + below(1ull << (1 + below(early_doublings_)));
}

uint64_t Policy::hold_back_ns() {
  if (closely_ != 0) return wait_ns(2, 7);
  // The longer, the rarer.
  return wait_ns(32ull << ((hold_back_doublings_ - kLeastDoublings) / 2), hold_back_doublings_);
}

uint64_t Policy::wait_ns(uint64_t one_in, uint64_t doublings) {
  if (!chaotic() || below(one_in) != 0) return 0;
  return (std::max(transfer_ns_, kLeastTransferNs) / 4) << below(doublings);
}

uint32_t Policy::drops() {
  if (!chaotic() || below(8) != 0) return 0;
  return static_cast<uint32_t>(1 + below(3));
}

bool Policy::read_first() {
  return chaotic() && below(2) == 0;
}

}  // namespace reprise::ept
