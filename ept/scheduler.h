// Which vCPUs may execute at the same time.
#pragma once

#include "base/page_right.h"
#include "base/units.h"

namespace reprise::ept {

// Decides for each vCPU what it needs of the turn, the token that says who may execute (ept/view.h). Threads:
// any.
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // Asked at each position, before the vCPU executes on. Replay gets the same answers at the same positions.
  [[nodiscard]] virtual Right turn_needed(VcpuId vcpu) const = 0;
};

// All at once; pages and devices have owners of their own.
class ParallelScheduler final : public Scheduler {
 public:
  [[nodiscard]] Right turn_needed(VcpuId /*vcpu*/) const override { return Right::kNone; }
};

// All at once while they share the turn, one at a time while one has it alone (ept/domains.h).
class DomainScheduler final : public Scheduler {
 public:
  [[nodiscard]] Right turn_needed(VcpuId /*vcpu*/) const override { return Right::kRead; }
};

// One at a time.
class SerialScheduler final : public Scheduler {
 public:
  [[nodiscard]] Right turn_needed(VcpuId /*vcpu*/) const override { return Right::kWrite; }
};

}  // namespace reprise::ept
