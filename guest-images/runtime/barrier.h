// All workers wait until the last one has come.
#pragma once

#include <stdint.h>

#include <atomic>

#include "runtime/system_calls.h"

namespace reprise::guest {

// The phase number plays the part of the sense bit in a sense-reversing barrier: a worker that is
// late in leaving cannot mistake the next round for its own.
class Barrier {
 public:
  // Before the first wait().
  void set_workers(uint32_t workers) { workers_ = workers; }

  void wait() {
    const uint32_t phase = phase_.load();
    if (arrived_.fetch_add(1) + 1 == workers_) {
      arrived_.store(0);
      phase_.store(phase + 1);
    } else {
      while (phase_.load() == phase) cpu_relax();
    }
  }

 private:
  uint32_t workers_ = 0;
  std::atomic<uint32_t> arrived_{0};
  std::atomic<uint32_t> phase_{0};
};

}  // namespace reprise::guest
