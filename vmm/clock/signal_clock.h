// No clock at all, for runs that nobody records: a kick forces an exit, and the vCPU stops wherever it
// happens to be.
#pragma once

#include "vmm/clock/clock.h"
#include "vmm/kvm/forced_exit.h"

namespace reprise::vmm {

class SignalClock final : public Clock {
 public:
  // The vCPU's; outlives the clock.
  explicit SignalClock(ForcedExit& forced_exit) : forced_exit_(forced_exit) {}

  [[nodiscard]] Ticks now() const override { return Ticks(0); }
  // Only "now" and "never" have a meaning here.
  void stop_at(Ticks target) override { target == kNever ? forced_exit_.allow() : forced_exit_.request(); }
  // Also just before KVM_RUN: the request stays until stop_at().
  void kick() override { forced_exit_.request(); }
  [[nodiscard]] KickedStop kicked_stop() const override { return KickedStop::kAnywhere; }

 private:
  ForcedExit& forced_exit_;
};

}  // namespace reprise::vmm
