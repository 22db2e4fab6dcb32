// A clock counts something deterministic about one vCPU's instruction stream and can stop the vCPU when the count reaches a
// target. Three kinds are meant (design: safepoints, retired branches, stops only); one is built.
#pragma once

#include "base/units.h"
#include "ept/mailbox.h"

namespace reprise::vmm {

// Threads: kick() from any; the rest is confined to the vCPU's thread.
class Clock : public ept::Kickable {
 public:
  static constexpr Ticks kNever{~0ull};

  // The count at the present stop. Exact.
  [[nodiscard]] virtual Ticks now() const = 0;
  // The vCPU stops as soon as now() >= target. kNever: runs on until something else stops it.
  virtual void stop_at(Ticks target) = 0;
  // Whether a kicked vCPU stops at a position that replay can find. Where not, nothing can be recorded.
  [[nodiscard]] virtual bool exact() const { return true; }
  // Called once by the vCPU's thread, before it runs.
  virtual void attach() {}
};

}  // namespace reprise::vmm
