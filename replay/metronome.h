// Brings a vCPU that computes for long without a stop to a position every now and then, where the timeline
// can be interrupted and can make a checkpoint.
#pragma once

#include <thread>

#include "base/mutex.h"
#include "vmm/machine.h"

namespace reprise::replay {

// A beat kicks the clocks, as the recorder does when it wants a page: the vCPU stops at its next safepoint,
// and that leaves no trace (vmm/clock/clock.h). Where a guest's kernel has no safepoints, beats nudge the
// machine as well. Threads: the one that runs the machine calls; beats come on a thread of its own.
class Metronome {
 public:
  explicit Metronome(vmm::Machine& machine);
  ~Metronome();
  Metronome(const Metronome&) = delete;
  Metronome& operator=(const Metronome&) = delete;

  // There are beats while one of these lives. Single steps must not be taken then: they count on the limit
  // that the clock has.
  class Beating {
   public:
    explicit Beating(Metronome& metronome) : metronome_(metronome) { metronome_.set(true); }
    ~Beating() { metronome_.set(false); }
    Beating(const Beating&) = delete;
    Beating& operator=(const Beating&) = delete;

   private:
    Metronome& metronome_;
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
