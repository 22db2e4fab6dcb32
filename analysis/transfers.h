// How often pages went from one vCPU to another.
#pragma once

#include <vector>

#include "analysis/transition_log.h"

namespace reprise::analysis {

// What one vCPU lost and another one got next.
struct PairTransfers {
  VcpuId from;
  VcpuId to;
  uint64_t count = 0;
};

struct PageTransfers {
  PageNumber page;
  uint64_t count = 0;
  std::vector<PairTransfers> pairs;  // most first
};

struct Transfers {
  uint64_t count = 0;
  std::vector<PairTransfers> pairs;  // most first
  std::vector<PageTransfers> pages;  // most first
};

// Those whose gain has begin <= ticket < end, and whose loss has as well. A page that several lose before one
// gets it is a transfer from each of them. Errors: kDamaged. Cost: reads all blocks in that range; an entry
// per page.
Result<Transfers> transfers(TransitionLog& log, Ticket begin, Ticket end);

}  // namespace reprise::analysis
