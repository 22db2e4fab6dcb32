// A vCPU one instruction at a time, as part of its run loop.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "vmm/fault_resolver.h"
#include "vmm/step/step_plan.h"
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
  // Where an interrupt window has opened: an emulated SVM forgets, on its way through an exit of the host's
  // own, that an instruction is in the shadow of the one before, and opens the window one instruction early;
  // real processors never do. So what may be in a shadow is carried out first, as if the window had not
  // opened. Whether it is cannot be known here, for KVM has forgotten it too: it is taken to be wherever the
  // bytes before rip are those of STI, or of MOV to SS from a register. Where they are something else's, the
  // interrupt comes an instruction later, as it may on any processor. A replay comes to the same place
  // whether its host forgets or not: it is the first one at which the bytes say that there is no shadow.
  struct Window {
    bool is_open = false;          // the guest takes interrupts where the vCPU stands now
    std::optional<ExitKind> exit;  // which an instruction on the way made: to be dealt with as always
  };
  // Errors: kHost.
  Result<Window> step_out_of_shadow();
  // How many steps nothing could carry out alone.
  [[nodiscard]] uint64_t coarse_steps() const { return coarse_steps_; }

 private:
  struct Planned {
    StepPlan plan;
    kvm_vcpu_events events{};
  };
  // Of the next instruction, or of an event that is delivered first; nothing: it must be entered.
  Result<std::optional<Planned>> plan(const kvm_regs& regs, bool window_may_open);
  // Nothing to be done where it is neither carried out nor stopped.
  Result<StepOutcome> carry_out(const Planned& planned);
  [[nodiscard]] Result<bool> may_be_in_shadow(const kvm_regs& regs) const;
  Outcome step_coarsely();
  [[nodiscard]] bool interrupt_window_is_open(const kvm_regs& regs, const kvm_vcpu_events& events) const;
  Status leave_shadow(const kvm_vcpu_events& before, uint8_t shadow);

  VcpuContext& context_;
  FaultResolver& faults_;
  uint64_t coarse_steps_ = 0;
};

}  // namespace reprise::vmm
