// Checks a recording without running it: `reprise verify`.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/recording_reader.h"

namespace reprise::log {

struct VerifiedLog {
  uint64_t events = 0;
  Position last;       // position of the last event
  bool torn = false;   // a prefix whose file ends inside a block
  bool ended = false;  // the last event is End
};

struct Verified {
  bool finished = false;     // there is a `final`
  uint64_t transitions = 0;  // gains and losses
  // All tickets 1 .. this are there. In a finished recording that is all of them; in a prefix, whose logs end
  // at different moments, it is as far as the vCPUs' order is known.
  Ticket complete;
  uint64_t pages = 0;             // pages that had a transition
  std::vector<VerifiedLog> logs;  // by vCPU
};

// Reads all of a recording. Checked always: block sums and decoding; positions never go back; tickets
// increase within a log and no two logs have the same; nothing follows End; the index, if there is one, is
// that of the logs; page histories (log/page_history.h), fully up to `complete`, behind it only that versions
// increase; in serial mode, that no page of RAM has transitions. With `final`: also tickets are exactly 1 ..
// final.tickets, each log ends with End and the register digest that `final` has, and the console is what
// `final` says. Errors: kDamaged with the place. Cost: reads everything once; memory for one block per vCPU
// and one entry per page.
Result<Verified> verify_recording(const Recording& recording);

}  // namespace reprise::log
