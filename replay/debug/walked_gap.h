// What was executed between two stops, one instruction after the other, so that it is not walked through
// twice.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "base/units.h"
#include "replay/timeline/mark.h"

namespace reprise::replay {

// Only of guests in which an instruction is a step, whatever happens to it: whose pages are never missing.
// Holds one gap, the last one.
class WalkedGap {
 public:
  // The vCPU whose turn it is at `now` is about to execute what is at `rip`.
  void note(const Mark& now, Gva rip);
  // Whether all from the gap's beginning up to `mark` was noted.
  [[nodiscard]] bool covers(const Mark& mark) const {
    return mark.without_steps() == begin_ && mark.at.steps <= rips_.size();
  }
  // The last moment in [begin, end) at which it was about to execute one of `places`. Requires: covers(end).
  [[nodiscard]] std::optional<Mark> last_at(const std::set<Gva>& places, const Mark& begin,
                                            const Mark& end) const;

 private:
  static constexpr size_t kMost = 8 << 20;  // instructions, of 8 bytes each
  Mark begin_;
  std::vector<Gva> rips_;  // by steps
};

}  // namespace reprise::replay
