// All of a replay at one moment.
#pragma once

#include <optional>
#include <string>
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
  size_t console_bytes = 0;

  bool from_file = false;
  // Of one that was read from a file, until it has been looked at: the digest that the machine must have, and
  // what the guest had written.
  std::optional<uint64_t> promised;
  std::string console;
  void visit(StateVisitor& visitor) {
    visitor("mark", mark);
    visitor("executed_ns", executed_ns);
    visitor("machine", machine);
    visitor("journals", journals);
    visitor("order", order);
    visitor("left", left);
    visitor("console", console);
    visitor("memory", memory);
  }
};

}  // namespace reprise::replay
