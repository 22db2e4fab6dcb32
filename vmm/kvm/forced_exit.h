// Makes KVM_RUN return: the one way in which anything but the guest itself takes a vCPU out of guest code.
// KVM returns -EINTR for a signal that arrives during KVM_RUN, and at once while kvm_run->immediate_exit is
// set. Source: Linux' Documentation/virt/kvm/api.rst, KVM_RUN (4.10) and section 5.
//
// Either leaves no trace in the guest. What it is good for is up to who asks: a clock that has nothing else
// to stop a vCPU by, a look at whether somebody wants the vCPU, its end.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "base/mutex.h"

namespace reprise::vmm {

// Which thread calls KVM_RUN now. No other thread is ever sent the signal, and none that has ended.
// Threads: synchronised inside.
class RunningThread {
 public:
  static constexpr int kSignal = SIGUSR1;
  // The calling thread, from now on. Installs the signal's handler.
  void enter();
  // None any more. Call before that thread ends.
  void leave();
  // If it is in KVM_RUN, that returns soon; one that is just about to enter misses it. Nothing happens where
  // the caller is that thread itself, or there is none.
  void interrupt();

 private:
  Mutex mutex_;
  std::optional<pthread_t> thread_ GUARDED_BY(mutex_);
};

// The calling thread is the running one while this lives.
class RunsHere {
 public:
  explicit RunsHere(RunningThread& running) : running_(running) { running_.enter(); }
  ~RunsHere() { running_.leave(); }
  RunsHere(const RunsHere&) = delete;
  RunsHere& operator=(const RunsHere&) = delete;

 private:
  RunningThread& running_;
};

// Of one vCPU. Threads: any, but for allow() and OnlyComplete, which are the running thread's.
class ForcedExit {
 public:
  // kvm_run's flag, which nobody else touches. It outlives this.
  explicit ForcedExit(uint8_t& immediate_exit) : immediate_exit_(immediate_exit) {}

  [[nodiscard]] RunningThread& thread() { return thread_; }
  // Once: see RunningThread::interrupt().
  void interrupt() { thread_.interrupt(); }
  // KVM_RUN returns, and each later one returns at once, until allow().
  void request() { keep_out(kRequested); }
  void allow();
  // The same for good: the vCPU is to end where it is. given_up() says so to who asks why KVM_RUN returned.
  void give_up() { keep_out(kGivenUp); }
  [[nodiscard]] bool given_up() const { return (reasons_.load(std::memory_order_seq_cst) & kGivenUp) != 0; }
  // For loops that go on whenever only the host interrupted them.
  [[nodiscard]] bool is_requested() const { return reasons_.load(std::memory_order_seq_cst) != 0; }

  // While one lives, KVM_RUN completes the instruction that it returned in and executes nothing.
  class OnlyComplete {
   public:
    explicit OnlyComplete(ForcedExit& exit) : exit_(exit) { exit_.store(1); }
    ~OnlyComplete() { exit_.follow_reasons(); }
    OnlyComplete(const OnlyComplete&) = delete;
    OnlyComplete& operator=(const OnlyComplete&) = delete;

   private:
    ForcedExit& exit_;
  };

 private:
  static constexpr uint8_t kRequested = 1, kGivenUp = 2;

  void store(uint8_t value) {
    std::atomic_ref<uint8_t>(immediate_exit_).store(value, std::memory_order_seq_cst);
  }
  void keep_out(uint8_t reason);
  void follow_reasons();

  uint8_t& immediate_exit_;
  std::atomic<uint8_t> reasons_{0};
  RunningThread thread_;
};

}  // namespace reprise::vmm
