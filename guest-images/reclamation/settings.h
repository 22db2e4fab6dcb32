// The command line of reclamation.elf.
#pragma once

#include <stdint.h>

#include "runtime/arguments.h"

namespace reprise::guest::reclamation {

// How far apart words are that several workers use.
enum class Layout { kPacked, kPadded, kPaged };

struct Settings {
  uint32_t seats() const { return workers + 1; }  // the workers, and who fills the structure

  uint32_t workers;
  uint64_t operations;    // of each worker
  uint64_t milliseconds;  // if not 0: so long instead of so many operations; a master ends it
  uint64_t update;        // of 100 operations so many change the structure
  uint64_t length;        // elements of a list
  uint64_t buckets;       // lists of a hash table
  uint64_t nodes;         // memory
  uint64_t group;   // operations from one quiescent state to the next (qsbr, rcu), or in one critical section
                    // (nebr)
  uint64_t batch;   // retired nodes that make hp look for free ones (R); critical sections after which ebr
                    // tries to advance the epoch
  uint64_t wait;    // turns of an empty loop between two operations
  uint64_t period;  // microseconds of a thread's time slice where a CPU has several workers
  uint64_t seed;
  uint64_t broken;  // 0: as published; 1, 2: with a bug
  Layout layout;
  bool stall;    // the last worker halts in the middle of an operation until the others are through
  bool fault;    // the last worker faults in the middle of an operation
  bool handler;  // and a handler then says that it is through
  bool verbose;
};

}  // namespace reprise::guest::reclamation
