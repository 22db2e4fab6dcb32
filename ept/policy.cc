#include "ept/policy.h"

namespace reprise::ept {

Policy::Policy(const PolicyOptions& options, VcpuId vcpu)
    : options_(options), random_(options.chaos.value_or(0) * 0x9e3779b97f4a7c15ull + vcpu.raw) {}

uint64_t Policy::hold_ns() {
  if (!chaotic()) return options_.hold_ns;
  // Mostly nothing, sometimes long: 1 us .. 1 ms, so that both quick ping-pong and long stays occur.
  return below(2) == 0 ? 0 : 1000ull << below(10);
}

// The rates below keep a chaotic recording within a small factor of a quiet one: a page that is dropped costs a fault (tens
// of stops' worth), so only one position in eight drops any.
std::optional<uint64_t> Policy::early_stop() {
  if (!chaotic() || below(4) != 0) return std::nullopt;
  return 1 + below(1ull << (1 + below(16)));
}

uint32_t Policy::pause_us() {
  if (!chaotic() || below(32) != 0) return 0;
  return static_cast<uint32_t>(1 + below(300));
}

uint32_t Policy::drops() {
  if (!chaotic() || below(8) != 0) return 0;
  return static_cast<uint32_t>(1 + below(3));
}

bool Policy::read_first() { return chaotic() && below(2) == 0; }

}  // namespace reprise::ept
