// The clock for guests that were not compiled for anything: only the guest's own deterministic stops count. A Linux kernel makes
// plenty (vmm/boot/kernel_patch.h), so whoever wants a vCPU to stop need only wait.
#pragma once

#include "vmm/clock/clock.h"

namespace reprise::vmm {

class StopsClock final : public Clock {
 public:
  [[nodiscard]] Ticks now() const override { return Ticks(0); }
  void stop_at(Ticks /*target*/) override {}
  void kick() override {}
  [[nodiscard]] KickedStop kicked_stop() const override { return KickedStop::kAtStop; }
};

}  // namespace reprise::vmm
