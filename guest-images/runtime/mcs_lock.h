// A queue of waiters, each spinning on a page of its own until the one before it lets it in.
// Source: Mellor-Crummey, Scott, "Algorithms for Scalable Synchronization on Shared-Memory
// Multiprocessors", ACM TOCS 1991.
#pragma once

#include <stdint.h>

#include <atomic>

#include "runtime/own_page.h"
#include "runtime/system_calls.h"
#include "runtime/thread.h"

namespace reprise::guest {

// The queue entry of a CPU is part of the lock: so one thread of each CPU at most may use it.
class McsLock {
 public:
  void lock() {
    Entry& mine = entry_[this_thread().cpu].value;
    mine.next.store(nullptr, std::memory_order_relaxed);
    mine.must_wait.store(1, std::memory_order_relaxed);
    Entry* before = last_->exchange(&mine, std::memory_order_acq_rel);
    if (!before) return;
    before->next.store(&mine, std::memory_order_release);
    while (mine.must_wait.load(std::memory_order_acquire) != 0) cpu_relax();
  }

  void unlock() {
    Entry& mine = entry_[this_thread().cpu].value;
    if (!mine.next.load(std::memory_order_acquire)) {
      Entry* expected = &mine;
      if (last_->compare_exchange_strong(expected, nullptr, std::memory_order_acq_rel)) return;
      // Somebody has taken the place behind us and is about to say so.
      while (!mine.next.load(std::memory_order_acquire)) cpu_relax();
    }
    mine.next.load(std::memory_order_relaxed)->must_wait.store(0, std::memory_order_release);
  }

 private:
  struct Entry {
    std::atomic<Entry*> next;
    std::atomic<uint32_t> must_wait;
  };

  OwnPage<std::atomic<Entry*>> last_;
  OwnPage<Entry> entry_[MAX_CPUS];
};

}  // namespace reprise::guest
