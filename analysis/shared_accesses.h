// The accesses to shared pages around the moments at which one vCPU executes after another.
#pragma once

#include <vector>

#include "analysis/race_detector.h"
#include "analysis/transition_log.h"

namespace reprise::analysis {

// Between two tickets of other vCPUs, one vCPU executes a stretch. If it is long, what is interesting is at
// its ends: the last accesses before another vCPU executes, and the first ones after.
struct TraceLimits {
  uint64_t accesses = 100'000;  // of all; then the trace ends, behind a stretch
  // Accesses of a stretch that say nothing new, by an instruction that has accessed the same bytes before in
  // it; then the rest of it goes unseen,
  uint64_t repeated = 256;
  uint64_t at_end = 8;  // up to so many stops and safepoints before its end
};

struct SharedAccesses {
  Trace trace;
  uint64_t accesses = 0;
  uint64_t stretches = 0;
  uint64_t unseen = 0;                   // stretches of which a part was not seen
  std::optional<replay::Mark> ended_at;  // where the limit of all was reached
};

// From where the timeline is to before `end`; leaves it tainted. Errors: as Timeline::run_watched();
// kDamaged. Cost: 0.3 ms for each access where KVM is software, and 20 bytes and more of the trace.
Result<SharedAccesses> trace_shared_accesses(replay::Timeline& timeline, const log::Recording& recording,
                                             TransitionLog& log, const std::vector<PageNumber>& pages,
                                             const replay::Mark& end, const TraceLimits& limits);

}  // namespace reprise::analysis
