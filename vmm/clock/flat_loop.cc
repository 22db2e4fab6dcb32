#include "vmm/clock/flat_loop.h"

namespace reprise::vmm {
namespace {

// Addresses are tried meanwhile, which takes some tens of milliseconds.
constexpr uint64_t kLongNs = 200'000'000;

}  // namespace

std::optional<uint64_t> FlatLoopWatch::kept(uint64_t now_ns) {
  if (!since_ns_.has_value()) since_ns_ = now_ns;
  const uint64_t ns = now_ns - *since_ns_;
  if (ns < kLongNs || (longest_.has_value() && ns <= longest_->ns)) return std::nullopt;
  return ns;
}

}  // namespace reprise::vmm
