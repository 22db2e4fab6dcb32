// A clock counts something deterministic about one vCPU's instruction stream and can stop the vCPU when the
// count reaches a target. Three kinds are meant (design: safepoints, retired branches, stops only); the first
// is built, and joined with the last for Linux guests.
#pragma once

#include "base/units.h"
#include "ept/mailbox.h"

namespace reprise::vmm {

// Where a vCPU that somebody wants to stop comes to a stop.
enum class KickedStop {
  kAtTick,  // at a tick, which replay can find
  kAtStop,  // at its next deterministic stop, which replay comes to by itself, or at a tick, if there is one
            // before; interrupts wait for an interrupt window
  kAnywhere,  // at once, wherever it is: nothing can be recorded
};

// Threads: kick() from any; the rest is confined to the vCPU's thread.
class Clock : public ept::Kickable {
 public:
  static constexpr Ticks kNever{~0ull};

  // The count at the present stop. Exact.
  [[nodiscard]] virtual Ticks now() const = 0;
  // The vCPU stops as soon as now() >= target. kNever: runs on until something else stops it.
  virtual void stop_at(Ticks target) = 0;
  [[nodiscard]] virtual KickedStop kicked_stop() const { return KickedStop::kAtTick; }
};

}  // namespace reprise::vmm
