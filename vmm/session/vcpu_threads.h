// The threads that run a machine's vCPUs: the one place where they are made, held back, watched, given up and
// joined.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "vmm/machine.h"

namespace reprise::vmm {

// Threads: made, started, joined and destroyed on one; the rest is for any. One more thread watches while the
// vCPUs run.
class VcpuThreads {
 public:
  struct Hooks {
    // Called on a vCPU's thread when that vCPU ends with an error; it must make the others stop.
    std::function<void(const Error&)> failed;
    // Whether the vCPUs were told to stop. Asked again and again, on the thread that watches.
    std::function<bool()> stopping;
  };
  // `machine` (after assemble()) outlives this.
  VcpuThreads(Machine& machine, Hooks hooks);
  // Requires: none was started, or all were told to stop.
  ~VcpuThreads();
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;

  // Each vCPU runs on a thread of its own until it leaves. Call once.
  void start();
  // Takes all vCPUs out of guest code. True: none executes anything, nor does anything happen to one, until
  // resume(). False: after `patience` some thread was not yet there (a host that is busy, an output that
  // nobody reads); it will stop as soon as it is.
  bool pause(std::chrono::nanoseconds patience);
  void resume();
  // vCPUs that have not left `grace` from now on, after they were told to stop, are given up where they are.
  // Where nobody says so, ten seconds.
  void expect_end(std::chrono::nanoseconds grace);
  // True: all have left. False: `time` is over.
  [[nodiscard]] bool wait_for(std::chrono::nanoseconds time);
  // Waits until all have left. Errors: the first of those that vCPUs ended with.
  Status join();

 private:
  void run(VcpuId vcpu);
  Status run_to_the_end(Vcpu& vcpu);
  void watch();

  Machine& machine_;
  const Hooks hooks_;
  Gate& gate_;
  std::vector<std::thread> threads_;
  std::thread watching_;
  Mutex mutex_;
  Condition changed_;
  uint32_t running_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> first_error_ GUARDED_BY(mutex_);
  std::optional<std::chrono::steady_clock::time_point> given_up_at_ GUARDED_BY(mutex_);
};

}  // namespace reprise::vmm
