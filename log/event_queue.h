// From a vCPU's thread to the writer thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "base/mutex.h"
#include "log/event.h"

namespace reprise::log {

// What the writer thread sleeps on.
// Threads: synchronised inside.
class WakeUp {
 public:
  void signal() EXCLUDES(mutex_);
  void wait_until(std::chrono::steady_clock::time_point deadline) EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  Condition condition_;
  bool signalled_ GUARDED_BY(mutex_) = false;
};

// Two buffers of events that change places: the vCPU fills one while the writer thread empties the other, so
// the mutex is held for one move of an event, or one swap.
// Threads: synchronised inside; one thread appends, one takes.
class EventQueue {
 public:
  // `limit_bytes`: what the queue may hold before append() waits; the buffer that is being emptied counts for
  // itself, so the memory used is up to twice that.
  EventQueue(WakeUp& wake_up, size_t limit_bytes);

  // Waits while the queue is full. Drops the event once close() was called.
  // Cost: about 60 ns when it does not wait (log_bench).
  void append(Event&& event) EXCLUDES(mutex_);

  // Swaps all queued events into `events`, which must be empty; its capacity is used again.
  void take(std::vector<Event>& events) EXCLUDES(mutex_);

  // No event is taken from now on, no append() waits.
  void close() EXCLUDES(mutex_);

 private:
  // Wakes the writer thread early: about 8,000 plain events, of the order of one block.
  static constexpr size_t kWakeBytes = size_t{512} * 1024;

  WakeUp& wake_up_;
  const size_t limit_bytes_;
  Mutex mutex_;
  Condition room_;
  std::vector<Event> events_ GUARDED_BY(mutex_);
  size_t bytes_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace reprise::log
