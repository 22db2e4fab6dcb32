// Brings a vCPU that computes for long without a stop to a position every now and then, where the timeline
// can be interrupted and can make a checkpoint.
#pragma once

#include <thread>

#include "base/mutex.h"
#include "vmm/machine.h"

namespace reprise::replay {

// A beat kicks the clocks, as the recorder does when it wants a page: the vCPU stops at its next safepoint,
// and that leaves no trace (vmm/clock/positioner.h). Where a guest's kernel has no safepoints, some of the
// beats force exits as well (Machine::force_exits()). Threads: the one that runs the machine calls; beats
// come on a thread of its own.
class PreemptionTimer {
 public:
  explicit PreemptionTimer(vmm::Machine& machine);
  ~PreemptionTimer();
  PreemptionTimer(const PreemptionTimer&) = delete;
  PreemptionTimer& operator=(const PreemptionTimer&) = delete;

  // There are beats while one of these lives. Single steps must not be taken then: they count on the limit
  // that the clock has.
  class Beating {
   public:
    explicit Beating(PreemptionTimer& timer) : preemption_timer_(timer) { preemption_timer_.set(true); }
    ~Beating() { preemption_timer_.set(false); }
    Beating(const Beating&) = delete;
    Beating& operator=(const Beating&) = delete;

   private:
    PreemptionTimer& preemption_timer_;
  };

 private:
  void set(bool on);
  void beat_until_the_end();

  vmm::Machine& machine_;
  Mutex mutex_;
  Condition changed_;
  bool on_ GUARDED_BY(mutex_) = false;
  bool has_ended_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace reprise::replay
