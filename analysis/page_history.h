// Who had a page when, and who can have written to it last.
#pragma once

#include <optional>
#include <vector>

#include "analysis/transition_log.h"

namespace reprise::analysis {

struct PageHistory {
  std::vector<Transition> transitions;  // in the order of tickets
  uint64_t earlier = 0;                 // transitions of the page before these
};

// The latest transitions of a page before a ticket, `most` of them. Errors: kDamaged.
Result<PageHistory> page_history(TransitionLog& log, PageNumber page, Ticket before, size_t most);

struct Holder {
  VcpuId vcpu;
  Right right = Right::kRead;
  Ticket since;
};

// Who may read or write the page when ticket `before` is taken next, by vCPU. Pages that each vCPU has its
// own of have no transitions, and in serial mode no page of RAM has. Who has the turn alone may write to all
// of memory, beside what the others have the right to and cannot use now. Errors: kDamaged. Cost: back to the
// last one who could write.
Result<std::vector<Holder>> holders(TransitionLog& log, PageNumber page, Ticket before);

// A time in which one vCPU, and nobody else, could write to a page.
struct WriteTenure {
  VcpuId vcpu;
  Ticket begin;
  std::optional<Ticket> end;  // nothing: it goes on when `before` is taken
};

// In which the last write to the page before a ticket can have been, by the right to it or with the turn
// alone, the latest first: `most` of them. Errors: kDamaged.
Result<std::vector<WriteTenure>> last_writers(TransitionLog& log, PageNumber page, Ticket before,
                                              size_t most);

}  // namespace reprise::analysis
