// What a run of a guest comes to, and how far it is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ept/crew.h"
#include "log/schema.pb.h"
#include "vmm/clock/flat_loop.h"
#include "vmm/guest/machine_options.h"
#include "vmm/journal.h"
#include "vmm/vcpu/vcpu_state.h"

namespace reprise::vmm {

// How far a run is.
struct Progress {
  uint64_t wall_ns = 0;  // without pauses
  uint64_t transitions = 0;
  uint64_t of_transitions = 0;  // 0: nobody knows
  uint64_t log_bytes = 0;
  uint64_t stops = 0;                  // deterministic ones, of all vCPUs
  std::optional<uint64_t> virtual_ns;  // the guest's time; none in a replay, where it is part of the log
};

// What a run came to.
struct Outcome {
  MachineStop stop;
  uint64_t memory_digest = 0;
  std::vector<uint64_t> register_digests;  // one a vCPU
  uint64_t tickets = 0;                    // transitions
  uint64_t wall_ns = 0;                    // without pauses
  uint64_t log_bytes = 0;
  std::vector<VcpuStatistics> vcpus;
  std::vector<ept::CrewTimes> crew;       // empty for a replay
  std::vector<log::pb::TimeSplit> times;  // the same
  ClockKind clock = ClockKind::kSafepoints;
  std::string why_no_kernel_clock;                  // one sentence, of a Linux guest that has none
  std::vector<std::optional<FlatLoop>> flat_loops;  // by vCPU, of a Linux guest
  bool patches_modules = true;  // false: a Linux kernel whose modules nobody looks through
};

}  // namespace reprise::vmm
