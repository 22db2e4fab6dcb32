// Which vCPUs may execute at the same time.
#pragma once

#include "base/units.h"

namespace reprise::ept {

// Decides for each vCPU whether it needs the turn: a token whose owner alone executes, and owns all memory
// and devices meanwhile. Threads: any.
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // Asked at each position, before the vCPU executes on. Replay gets the same answers at the same positions.
  [[nodiscard]] virtual bool needs_turn(VcpuId vcpu) const = 0;
};

// All at once; pages and devices have owners of their own.
class ParallelScheduler final : public Scheduler {
 public:
  [[nodiscard]] bool needs_turn(VcpuId /*vcpu*/) const override { return false; }
};

// One at a time.
class SerialScheduler final : public Scheduler {
 public:
  [[nodiscard]] bool needs_turn(VcpuId /*vcpu*/) const override { return true; }
};

}  // namespace reprise::ept
