// All of a replay at one moment.
#pragma once

#include <optional>
#include <vector>

#include "replay/page_order.h"
#include "replay/replay_journal.h"
#include "replay/timeline/mark.h"
#include "replay/timeline/memory_snapshot.h"
#include "vmm/machine.h"

namespace reprise::replay {

struct Checkpoint {
  Mark mark;  // with steps only where the machine has a board: an instruction is a step there
  uint64_t executed_ns = 0;
  MemorySnapshot memory;
  vmm::MachineState machine;
  std::vector<ReplayJournalState> journals;
  PageOrderState order;
  std::vector<bool> left;
  uint64_t console_bytes = 0;  // that the guest had written, as recorded

  bool from_file = false;
  // Of one that was read from a file, until it has been looked at: the digest that the machine must have.
  std::optional<uint64_t> promised;
  void visit(StateVisitor& visitor) {
    visitor("mark", mark);
    visitor("executed_ns", executed_ns);
    visitor("machine", machine);
    visitor("journals", journals);
    visitor("order", order);
    visitor("left", left);
    visitor("console_bytes", console_bytes);
    visitor("memory", memory);
  }
};

}  // namespace reprise::replay
