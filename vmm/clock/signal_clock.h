// No clock at all, for runs that nobody records: a kick is a signal, and the vCPU stops wherever it happens
// to be.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>

#include "vmm/clock/clock.h"

namespace reprise::vmm {

// The signal that makes KVM_RUN return -EINTR. Its handler does nothing (installed by Machine).
inline constexpr int kKickSignal = SIGUSR1;

class SignalClock final : public Clock {
 public:
  // `immediate_exit`: kvm_run's flag of the vCPU, so that a kick just before KVM_RUN is not lost.
  explicit SignalClock(uint8_t& immediate_exit) : immediate_exit_(immediate_exit) {}

  // Called by the vCPU's thread before it runs.
  void attach() override {
    thread_ = pthread_self();
    attached_.store(true, std::memory_order_release);
  }
  [[nodiscard]] Ticks now() const override { return Ticks(0); }
  // Only "now" and "never" have a meaning here.
  void stop_at(Ticks target) override {
    std::atomic_ref<uint8_t>(immediate_exit_).store(target == kNever ? 0 : 1, std::memory_order_seq_cst);
  }
  void kick() override {
    std::atomic_ref<uint8_t>(immediate_exit_).store(1, std::memory_order_seq_cst);
    if (attached_.load(std::memory_order_acquire)) (void)pthread_kill(thread_, kKickSignal);
  }
  [[nodiscard]] KickedStop kicked_stop() const override { return KickedStop::kAnywhere; }

 private:
  uint8_t& immediate_exit_;
  pthread_t thread_{};
  std::atomic<bool> attached_{false};
};

}  // namespace reprise::vmm
