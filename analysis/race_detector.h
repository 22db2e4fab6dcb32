// Which accesses race: a vector clock for each vCPU, and for each word that orders them (docs/races.md).
#pragma once

#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "replay/debug/access_trace.h"

namespace reprise::analysis {

// What a trace holds, in the order of the replay.
struct Sent {  // a message to a local APIC
  VcpuId from;
};
struct Received {
  VcpuId to;
};
// It may have done more up to here, without being looked at: so it is taken to have waited for all that
// others had made known, and to have made known all that it had done.
struct Unseen {
  VcpuId vcpu;
};
using TraceItem = std::variant<replay::MemoryAccess, Sent, Received, Unseen>;
using Trace = std::vector<TraceItem>;

// Two instructions that raced, by places in the trace: where they did so for the first time, and how often.
struct RacingPair {
  size_t first = 0;
  size_t second = 0;
  uint64_t count = 0;
};

// Bytes that order vCPUs: those that an atomic instruction has written to, or a waiting load has read,
// anywhere in the trace.
class OrderingBytes {
 public:
  explicit OrderingBytes(std::span<const TraceItem> trace);
  [[nodiscard]] bool contains(Gpa at) const { return bytes_.contains(at); }

 private:
  std::unordered_set<Gpa> bytes_;
};

// Two accesses race where they are to the same byte, by different vCPUs, one of them a write, and neither is
// ordered before the other: by what one vCPU does, by ordering bytes (a write to one happens before each
// later read of it), or by messages. Each access is compared with the last ones of the other vCPUs, so what
// is reported are neighbours. Cost: a look-up or two for each byte. Requires: vCPUs below `vcpus`.
[[nodiscard]] std::vector<RacingPair> find_races(std::span<const TraceItem> trace, uint32_t vcpus);

}  // namespace reprise::analysis
