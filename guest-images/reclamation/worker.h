// What each worker has to itself, whatever the scheme. Each scheme adds its own.
#pragma once

#include "reclamation/node.h"
#include "runtime/random.h"

namespace reprise::guest::reclamation {

inline constexpr uint32_t kMaxWorkers = 63;          // rcu has a bit for each seat
inline constexpr uint32_t kSeats = kMaxWorkers + 1;  // the workers, and who fills the structure

struct WorkerBase {
  uint32_t index = 0;
  NodeList free;  // this worker's part of the pool

  uint64_t retired = 0;  // nodes that it took out of the structure
  uint64_t reclaimed = 0;
  uint64_t peak = 0;  // most nodes that were retired and not yet reclaimed

  uint64_t operations = 0;
  uint64_t starved = 0;            // operations that found no memory
  uint64_t trouble_after = ~0ull;  // operations until it halts or faults in the middle of one
  void (*trouble)() = nullptr;

  // Called by each scheme.
  void count_retired() {
    ++retired;
    if (retired - reclaimed > peak) peak = retired - reclaimed;
  }

  // Called by each structure in the middle of an operation, where the worker holds pointers to nodes.
  void in_operation() {
    if (trouble_after-- == 0) [[unlikely]]
      trouble();
  }
};

}  // namespace reprise::guest::reclamation
