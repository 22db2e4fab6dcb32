// How long something has been going on, without its pauses.
#pragma once

#include <cstdint>

#include "base/mutex.h"
#include "base/time.h"

namespace reprise {

// Stands at first. Threads: synchronised inside.
class Stopwatch {
 public:
  void resume() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (runs_) return;
    runs_ = true;
    since_ns_ = monotonic_ns();
  }
  void pause() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!runs_) return;
    runs_ = false;
    before_ns_ += monotonic_ns() - since_ns_;
  }
  [[nodiscard]] uint64_t elapsed_ns() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return before_ns_ + (runs_ ? monotonic_ns() - since_ns_ : 0);
  }

 private:
  mutable Mutex mutex_;
  bool runs_ GUARDED_BY(mutex_) = false;
  uint64_t before_ns_ GUARDED_BY(mutex_) = 0;  // until it last stood
  uint64_t since_ns_ GUARDED_BY(mutex_) = 0;
};

}  // namespace reprise
