// The data races that happened in a recording, and the pages that vCPUs share without need. docs/races.md
// says what counts as one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "analysis/shared_accesses.h"
#include "analysis/symbols.h"

namespace reprise::analysis {

// One of the two.
struct RacingAccess {
  replay::MemoryAccess access;
  replay::Mark mark;  // at its instruction, where `exact`; else of the position before
  bool exact = false;
  std::string object;  // that it accesses; empty: unknown
  std::vector<std::vector<CodeFrame>>
      stack;  // the innermost first; of each call, inlined functions before it
};

struct Race {
  RacingAccess first, second;  // in the order of the replay
  uint64_t count = 0;          // how often these two lines raced, as far as it was seen
};

// One vCPU's part of a page.
struct PageUser {
  VcpuId vcpu;
  bool writes = false;
  uint64_t first = 0, last = 0;  // offsets of bytes
  std::string object;            // that is at the first one that it accesses
  std::vector<CodeFrame> code;   // of its first access: a write, if it writes
};

// Several vCPUs use a page, one of them writing, and no byte that one writes is used by another.
struct FalseSharing {
  PageNumber page;
  uint64_t transfers = 0;  // of the page, in the recording
  std::vector<PageUser> users;
};

struct RaceOptions {
  std::optional<replay::Mark> from, to;
  TraceLimits limits;
  size_t most_located = 50;  // races that are gone to, for their exact marks and backtraces
};

struct Races {
  std::vector<Race> races;
  std::vector<FalseSharing> false_sharing;  // most transfers first
  // What was looked at.
  uint64_t pages = 0;
  uint64_t pages_left_out = 0;
  uint64_t accesses = 0;
  uint64_t stretches = 0;
  uint64_t unseen = 0;
  std::optional<replay::Mark> ended_at;
};

// `symbols`: may be null. Errors: as Timeline::run_to(); kUsage for marks that are none. Cost: two replays
// and 0.3 ms for each access that is looked at, then a replay to each race.
Result<Races> find_races(replay::Timeline& timeline, const log::Recording& recording, const Symbols* symbols,
                         const RaceOptions& options);

}  // namespace reprise::analysis
