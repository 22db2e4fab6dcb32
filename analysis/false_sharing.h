// Pages that vCPUs share though they use different bytes.
#pragma once

#include <span>
#include <vector>

#include "analysis/race_detector.h"

namespace reprise::analysis {

// One vCPU's part of a page.
struct PagePart {
  VcpuId vcpu;
  bool writes = false;
  uint64_t first = 0, last = 0;  // offsets of the first and the last byte
  size_t item = 0;               // of the trace: its first access, or first write, if it writes
};

struct FalselySharedPage {
  PageNumber page;
  std::vector<PagePart> parts;
};

// Pages that several vCPUs access in the trace, one of them writing, where no byte that one writes is
// accessed by another: by number.
[[nodiscard]] std::vector<FalselySharedPage> falsely_shared_pages(std::span<const TraceItem> trace);

}  // namespace reprise::analysis
