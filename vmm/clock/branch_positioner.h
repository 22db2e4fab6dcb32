// Conditional branches count, by a counter of the processor: any code, stopped at any instruction.
//
// A kick stops the vCPU at once. Where it stands then has a name: the branches that it has retired, and,
// since many instructions come between two of them, rip and a digest of the general registers
// (log::Preemption). To come there again, the counter is set to interrupt early, by more than its interrupts
// are late (skid); the rest is single steps, until all three are the same. A count that is passed without
// that is a divergence.
#pragma once

#include <optional>

#include "vmm/clock/positioner.h"
#include "vmm/kvm/branch_counter.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

class BranchPositioner final : public Positioner {
 public:
  // Branches. Shorter ways are stepped: the kernel may lengthen short periods. Source: Linux,
  // arch/x86/events, limit_period.
  static constexpr uint64_t kShortestPeriod = 32;

  // `early`: by so many branches before a place that has to be found, the counter is set to interrupt; more
  // than its skid. Both references outlive the positioner.
  BranchPositioner(BranchCounter& counter, KvmVcpu& kvm, uint64_t early)
      : counter_(counter), kvm_(kvm), early_(early) {}

  [[nodiscard]] Ticks ticks() const override { return Ticks(counter_.count()); }
  void arm(const Limit& limit) override;
  void kick() override { kvm_.forced_exit().request(); }
  [[nodiscard]] bool needs_interruptions() const override { return false; }
  [[nodiscard]] bool names_every_place() const override { return true; }
  [[nodiscard]] std::optional<Ticks> nearest_limit() const override { return ticks() + kShortestPeriod; }
  Result<Interruption> interrupted(Journal& journal) override;
  Result<BreakpointExit> exited(ExitKind exit, Journal& journal) override;
  [[nodiscard]] bool uses_interrupt_windows() const override { return true; }

 private:
  // Where the vCPU stands, as far as it has to go on from there before it is stopped again.
  struct Place {
    uint64_t count = 0, rip = 0;
    bool operator==(const Place&) const = default;
  };
  Result<Interruption> seek(Journal& journal, const log::Preemption& here);
  Result<Interruption> stop(Journal& journal, const log::Preemption& here);

  BranchCounter& counter_;
  KvmVcpu& kvm_;
  const uint64_t early_;
  Limit limit_;
  bool signalled_ = false;  // the counter was set to interrupt
  std::optional<Place> stood_;
};

}  // namespace reprise::vmm
