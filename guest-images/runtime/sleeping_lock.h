// Waiters halt their CPU instead of spinning; who unlocks interrupts one of them.
#pragma once

#include <stdint.h>

#include <atomic>

#include "runtime/system_calls.h"
#include "runtime/thread.h"

namespace reprise::guest {

// No wake-up is lost: a waiter announces itself before the kernel looks at `held_` a last time; the
// holder clears `held_` before it looks for waiters. One of the two sees the other. A waiter that
// is woken and finds the lock taken again is still announced, so the next unlock wakes it.
// One thread of each CPU at most may wait: announcements are by CPU.
class SleepingLock {
 public:
  void lock() {
    if (held_.exchange(1) == 0) return;
    const uint32_t me = uint32_t{1} << this_thread().cpu;
    waiting_.fetch_or(me);
    while (held_.exchange(1) != 0) sleep_while(&held_, 1);
    waiting_.fetch_and(~me);
  }

  void unlock() {
    held_.store(0);
    const uint32_t waiting = waiting_.load();
    if (waiting != 0) wake(static_cast<uint32_t>(__builtin_ctz(waiting)));
  }

 private:
  std::atomic<uint32_t> held_{0};
  std::atomic<uint32_t> waiting_{0};  // bit i: CPU i
};

}  // namespace reprise::guest
