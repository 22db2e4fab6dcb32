// A Linux guest: its kernel's function entries count (vmm/guest/linux/entry_clock.h) where it can trace
// functions, and safepoints of programs that have some; other code passes no ticks. A kick stops the vCPU at
// the next safepoint of such a program, if it comes to one, else at its next deterministic exit. The kernel
// makes plenty of those (vmm/guest/linux/kernel_patch.h), and a loop that waits for another vCPU is found out
// by single steps (vmm/clock/spin.h).
#pragma once

#include "vmm/clock/safepoint_positioner.h"
#include "vmm/guest_memory.h"

namespace reprise::vmm {

class StopPositioner final : public Positioner {
 public:
  // `page`: in which programs count (guest-images/linux/safepoint-c++). All outlive the positioner.
  StopPositioner(ClockPage& page, KvmVcpu& kvm, const ViewMemory& memory)
      : page_(page), kvm_(kvm), memory_(memory) {}

  [[nodiscard]] Ticks ticks() const override { return page_.ticks(); }
  void arm(const Limit& limit) override {
    kvm_.shared().request_interrupt_window = limit.interrupt_waits ? 1 : 0;
    page_.stop_at(limit.until);
  }
  void kick() override { page_.stop_at(Ticks(0)); }
  [[nodiscard]] bool needs_interruptions() const override { return true; }
  Result<Interruption> interrupted(Journal& journal) override;
  [[nodiscard]] bool uses_interrupt_windows() const override { return true; }

 private:
  ClockPage& page_;
  KvmVcpu& kvm_;
  const ViewMemory& memory_;
};

}  // namespace reprise::vmm
