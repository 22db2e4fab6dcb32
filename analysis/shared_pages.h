// Which pages several vCPUs use, whoever executed beside whom.
#pragma once

#include <vector>

#include "replay/timeline/timeline.h"

namespace reprise::analysis {

struct SharedPages {
  // That several vCPUs access, one of them writing.
  std::vector<PageNumber> data;
  // Of these, those that hold code or page tables as well.
  uint64_t left_out = 0;
};

// From where the timeline is to before `end`, with the first access of each vCPU to each page as an exit; so
// it finds what vCPUs share that executed one at a time, too, of which the log has no transitions. Leaves the
// timeline tainted. Errors: as Timeline::run_watched(). Cost: a replay, and an exit for each page that each
// vCPU uses.
Result<SharedPages> find_shared_pages(replay::Timeline& timeline, const replay::Mark& end);

}  // namespace reprise::analysis
