// A vCPU one instruction at a time, as part of its run loop.
#pragma once

#include <cstdint>
#include <variant>

#include "vmm/fault_resolver.h"
#include "vmm/vcpu/vcpu_context.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread.
class VcpuStepper {
 public:
  VcpuStepper(VcpuContext& context, FaultResolver& faults) : context_(context), faults_(faults) {}

  struct Stepped {};        // one instruction has been carried out or an event been delivered, nothing else
  struct EnterAsAlways {};  // nothing has happened: it makes a stop, or cannot be stepped over
  struct MustLeave {};      // nothing is known of what comes after
  using Outcome = std::variant<Stepped, EnterAsAlways, MustLeave, ExitKind>;  // the exit it ended with

  // Carries out one instruction alone, if that can be done (vmm/step/step_plan.h). The clock stops the vCPU
  // at tick `until`. Errors: kHost.
  Result<Outcome> step(Ticks until);
  // How many steps nothing could carry out alone.
  [[nodiscard]] uint64_t coarse_steps() const { return coarse_steps_; }

 private:
  Outcome step_coarsely();
  [[nodiscard]] bool interrupt_window_is_open(const kvm_regs& regs, const kvm_vcpu_events& events) const;
  Status leave_shadow(const kvm_vcpu_events& before, uint8_t shadow);

  VcpuContext& context_;
  FaultResolver& faults_;
  uint64_t coarse_steps_ = 0;
};

}  // namespace reprise::vmm
