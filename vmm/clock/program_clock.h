// The clock of a Linux guest. Its kernel has no safepoints; programs may have been compiled with them
// (guest-images/linux/safepoint-c++), and count in the clock page of the vCPU that executes them. So a kick
// stops the vCPU at the next safepoint, if it comes to one, else at its next deterministic stop: the kernel
// makes plenty (vmm/guest/linux/kernel_patch.h), so whoever wants the vCPU need only wait.
#pragma once

#include "vmm/clock/safepoint_clock.h"

namespace reprise::vmm {

class ProgramClock final : public SafepointClock {
 public:
  using SafepointClock::SafepointClock;
  [[nodiscard]] KickedStop kicked_stop() const override { return KickedStop::kAtStop; }
};

}  // namespace reprise::vmm
