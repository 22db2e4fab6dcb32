// Goes to an access that was seen in a trace: its exact mark, and how the vCPU came there.
#pragma once

#include <optional>
#include <vector>

#include "replay/debug/access_trace.h"

namespace reprise::analysis {

struct LocatedAccess {
  replay::Mark mark;
  Gva rip;
  Gva linear;
  std::vector<Gva> return_addresses;  // by the chain of frame pointers
};

// `nth`: that many accesses by this instruction from the position on to the same address are others, before
// it. Nothing: single steps do not lead there. Errors: as Timeline::step(). Cost: a replay to the position,
// and some dozen single steps.
Result<std::optional<LocatedAccess>> locate(replay::Timeline& timeline, const replay::MemoryAccess& access,
                                            uint64_t nth);

}  // namespace reprise::analysis
