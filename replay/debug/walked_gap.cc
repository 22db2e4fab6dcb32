#include "replay/debug/walked_gap.h"

namespace reprise::replay {

void WalkedGap::note(const Mark& now, Gva rip) {
  if (now.at.steps == 0) {
    begin_ = now;
    rips_.clear();
  }
  if (now.without_steps() == begin_ && now.at.steps == rips_.size() && rips_.size() < kMost)
    rips_.push_back(rip);
}

std::optional<Mark> WalkedGap::last_at(const std::set<Gva>& places, const Mark& begin,
                                       const Mark& end) const {
  const uint64_t first = begin > begin_ ? begin.at.steps : 0;
  for (uint64_t steps = end.at.steps; steps > first; --steps)
    if (places.contains(rips_[steps - 1]))
      return Mark{begin_.event, {begin_.at.stops, begin_.at.ticks, steps - 1}};
  return std::nullopt;
}

}  // namespace reprise::replay
