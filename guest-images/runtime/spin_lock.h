// Test-and-test-and-set: waiters read, and try to write only when they see the lock free.
#pragma once

#include <stdint.h>

#include <atomic>

#include "runtime/system_calls.h"

namespace reprise::guest {

class SpinLock {
 public:
  void lock() {
    while (held_.exchange(1, std::memory_order_acquire) != 0) {
      while (held_.load(std::memory_order_relaxed) != 0) cpu_relax();
    }
  }
  void unlock() { held_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t> held_{0};
};

// Holds any of the locks for a scope.
template <typename Lock>
class Locked {
 public:
  explicit Locked(Lock& lock) : lock_(lock) { lock_.lock(); }
  ~Locked() { lock_.unlock(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  Lock& lock_;
};

}  // namespace reprise::guest
