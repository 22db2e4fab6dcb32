// First come, first served: take a number, wait until it is shown.
#pragma once

#include <stdint.h>

#include <atomic>

#include "runtime/system_calls.h"

namespace reprise::guest {

class TicketLock {
 public:
  void lock() {
    const uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
    while (shown_.load(std::memory_order_acquire) != mine) cpu_relax();
  }
  void unlock() { shown_.store(shown_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

 private:
  std::atomic<uint32_t> next_{0};
  std::atomic<uint32_t> shown_{0};
};

}  // namespace reprise::guest
