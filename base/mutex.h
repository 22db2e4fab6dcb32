// A mutex and its guard that clang's thread-safety analysis understands (std::mutex has no annotations).
// Source: clang documentation, "Thread Safety Analysis", mutex.h.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define REPRISE_TSA(x) __attribute__((x))
#else
#define REPRISE_TSA(x)
#endif

#define CAPABILITY(x) REPRISE_TSA(capability(x))
#define SCOPED_CAPABILITY REPRISE_TSA(scoped_lockable)
#define GUARDED_BY(x) REPRISE_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) REPRISE_TSA(pt_guarded_by(x))
#define REQUIRES(...) REPRISE_TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) REPRISE_TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) REPRISE_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) REPRISE_TSA(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS REPRISE_TSA(no_thread_safety_analysis)

namespace reprise {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex that the caller holds.
class Condition {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) { condition_.wait(mutex); }
  template <typename Clock, typename Duration>
  bool wait_until(Mutex& mutex, std::chrono::time_point<Clock, Duration> deadline) REQUIRES(mutex) {
    return condition_.wait_until(mutex, deadline) == std::cv_status::no_timeout;
  }
  void notify_all() { condition_.notify_all(); }
  void notify_one() { condition_.notify_one(); }

 private:
  std::condition_variable_any condition_;
};

}  // namespace reprise
