// For runs that nobody records: there are no ticks, and a kick stops the vCPU wherever it happens to be.
#pragma once

#include "vmm/clock/positioner.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

class UnrecordedPositioner final : public Positioner {
 public:
  // `kvm` outlives the positioner.
  explicit UnrecordedPositioner(KvmVcpu& kvm) : kvm_(kvm) {}

  [[nodiscard]] Ticks ticks() const override { return Ticks(0); }
  // Of ticks, only "now" and "never" have a meaning here.
  void arm(const Limit& limit) override {
    kvm_.shared().request_interrupt_window = limit.interrupt_waits ? 1 : 0;
    limit.until == kNoTick ? kvm_.forced_exit().allow() : kvm_.forced_exit().request();
  }
  // Also just before KVM_RUN: the request stays until arm().
  void kick() override { kvm_.forced_exit().request(); }
  [[nodiscard]] bool needs_interruptions() const override { return false; }
  Result<Interruption> interrupted(Journal& /*journal*/) override { return Interruption(AnyPlace{}); }
  [[nodiscard]] bool uses_interrupt_windows() const override { return true; }
  [[nodiscard]] bool is_recordable() const override { return false; }

 private:
  KvmVcpu& kvm_;
};

}  // namespace reprise::vmm
