// A run of a guest, driven from outside. The two kinds are vmm/record/record_session.h, against the real
// world, and replay/replay_session.h.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "vmm/session/outcome.h"
#include "vmm/session/vcpu_threads.h"

namespace reprise::vmm {

// Life: create(), start(), and in the end wait() of the kind, which brings the outcome. A session that is
// destroyed before is stopped. Threads: pause(), resume(), stop(), wait_for() and progress() from any, after
// start(); the rest from the one that made it.
class Session {
 public:
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The guest begins. Call once.
  void start();
  // The guest stands still until resume(): no vCPU executes, virtual time does not pass, timers do not fire.
  // Leaves no trace in it, nor in a recording. False: some thread did not come to a standstill within a
  // second; it will as soon as it can. Nothing happens once the session was told to stop.
  bool pause();
  void resume();
  // The run is to end soon, also one that is paused: complete if each vCPU comes to a position within a
  // second, else where they are. Nothing happens if it ends already.
  void stop();
  // True: the run has ended, and wait() returns soon. False: `time` is over.
  [[nodiscard]] bool wait_for(std::chrono::nanoseconds time) { return threads_->wait_for(time); }

  [[nodiscard]] virtual Progress progress() const = 0;
  // One a vCPU. Requires: paused (pause() said true), or ended.
  [[nodiscard]] std::vector<VcpuStatistics> statistics() const;

 protected:
  Session() = default;
  // `machine` (after assemble()) outlives the threads, which release_threads() ends.
  void run_on(Machine& machine, VcpuThreads::Hooks hooks);
  // For destructors: stops the run if it has begun, and joins.
  void finish();
  // Waits until all vCPUs have left. Errors: the first of those that they ended with.
  Status join() { return threads_->join(); }
  [[nodiscard]] uint64_t stops() const;

  // Time passes for the guest, or it does not. At the beginning it does not.
  virtual void let_time_pass(bool passes) = 0;
  // Tells the vCPUs to leave. False: they were told already.
  virtual bool tell_to_stop() = 0;

 private:
  Machine* machine_ = nullptr;
  Mutex mutex_;  // one request after the other
  bool started_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;
  bool paused_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<VcpuThreads> threads_;
};

}  // namespace reprise::vmm
