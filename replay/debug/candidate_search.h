// The first half of a search: runs at full speed to where a vCPU may do what is looked for. The second half
// arrives there without a trace (replay/debug/stop_search.h).
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "replay/debug/watched_memory.h"
#include "replay/timeline/timeline.h"

namespace reprise::replay {

struct StopConditions {
  std::set<Gva> addresses;           // about to be executed
  std::vector<WatchedRange> ranges;  // about to be accessed
  // Asked at each of the addresses, with the machine as it is there; what it does not want is passed where
  // that is possible.
  std::function<bool(VcpuId, Gva)> wanted;
};

struct CandidateHit {
  Mark mark;                   // as Timeline::run_watched() says
  std::optional<Gva> address;  // nothing: an access, or what may be one
};

// From where the timeline is to before `end`: the first time that a vCPU is about to do one of these things.
// Leaves the timeline tainted. Errors: as Timeline::run_watched(); kHost.
Result<std::optional<CandidateHit>> find_candidate(Timeline& timeline, const StopConditions& conditions,
                                                   const Mark& end);

}  // namespace reprise::replay
