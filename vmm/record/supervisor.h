// Watches a running machine from outside: the user's interrupt, and vCPUs that come to no position although
// the machine stops.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "base/mutex.h"
#include "vmm/machine.h"

namespace reprise::vmm {

// Threads: watches on one of its own, from construction to destruction; the hooks are called there.
class Supervisor {
 public:
  struct Hooks {
    std::function<bool()> stopping;   // whether the machine was told to stop
    std::function<void()> interrupt;  // tells it
    std::function<void()> look;       // called again and again while the machine runs
  };
  // `interrupt`: set by a signal handler; may be null. References outlive the supervisor.
  Supervisor(Machine& machine, const std::atomic<bool>* interrupt, Hooks hooks);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // True if the user's interrupt was passed on.
  [[nodiscard]] bool interrupted() const { return interrupted_.load(std::memory_order_acquire); }

 private:
  void watch();
  // True when the machine has ended.
  bool sleep();

  Machine& machine_;
  const std::atomic<bool>* interrupt_;
  const Hooks hooks_;
  std::atomic<bool> interrupted_{false};
  Mutex mutex_;
  Condition ended_;
  bool has_ended_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace reprise::vmm
