// A Linux guest: its kernel's function entries count (vmm/guest/linux/entry_clock.h) where it can trace
// functions, and safepoints of programs that have some; other code passes no ticks. A kick stops the vCPU at
// the next safepoint of such a program, if it comes to one, else at its next deterministic exit. The kernel
// makes plenty of those (vmm/guest/linux/kernel_patch.h). In user mode, a loop that waits for another vCPU is
// found out by single steps (vmm/clock/spin.h); other code is stopped at addresses that it comes to seldom
// (vmm/clock/rare_addresses.h), where the kernel's function entries count.
#pragma once

#include <optional>

#include "vmm/clock/rare_addresses.h"
#include "vmm/clock/safepoint_positioner.h"
#include "vmm/clock/user_breakpoints.h"
#include "vmm/guest/guest_kernel.h"
#include "vmm/guest_memory.h"

namespace reprise::vmm {

class StopPositioner final : public Positioner {
 public:
  // `page`: in which programs count (guest-images/linux/safepoint-c++). `kernel`: null: it is as it was
  // built. All outlive the positioner.
  StopPositioner(ClockPage& page, KvmVcpu& kvm, const ViewMemory& memory, const GuestKernel* kernel)
      : page_(page), kvm_(kvm), memory_(memory) {
    if (kernel != nullptr && kernel->ticks() && kernel->exits_at_protection_faults())
      breakpoints_.emplace(kvm, memory, *kernel);
  }

  [[nodiscard]] Ticks ticks() const override { return page_.ticks(); }
  void arm(const Limit& limit) override {
    kvm_.shared().request_interrupt_window = limit.interrupt_waits ? 1 : 0;
    page_.stop_at(limit.until);
  }
  void kick() override { page_.stop_at(Ticks(0)); }
  [[nodiscard]] bool needs_interruptions() const override { return true; }
  Result<Interruption> interrupted(Journal& journal) override;
  Status entering(Journal& journal) override;
  Result<BreakpointExit> exited(ExitKind exit, Journal& journal) override;
  Result<std::optional<log::UserBreakpoint>> is_there(Journal& journal) override;
  [[nodiscard]] bool uses_interrupt_windows() const override { return true; }
  [[nodiscard]] std::optional<FlatLoop> flat_loop() const override { return flat_.longest(); }

 private:
  void stays_in_user_mode(const kvm_regs& regs, const kvm_sregs& sregs);
  Result<BreakpointExit> came_to(Gva address, Journal& journal);

  ClockPage& page_;
  KvmVcpu& kvm_;
  const ViewMemory& memory_;
  std::optional<UserBreakpoints> breakpoints_;
  RareAddresses rare_;  // while it is recorded
  FlatLoopWatch flat_;
};

}  // namespace reprise::vmm
