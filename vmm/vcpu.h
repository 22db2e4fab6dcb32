// One vCPU: runs guest code until it stops, and deals with the stop. Data walks one way: guest -> stop ->
// handler -> journal.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "vmm/device/device_accesses.h"
#include "vmm/exit_handlers.h"
#include "vmm/fault_resolver.h"
#include "vmm/guest/boot_state.h"
#include "vmm/injector.h"
#include "vmm/step/vcpu_stepper.h"
#include "vmm/vcpu/vcpu_context.h"
#include "vmm/vcpu/vcpu_parts.h"
#include "vmm/vcpu/vcpu_state.h"
#include "vmm/vcpu/vcpu_watch.h"

namespace reprise::vmm {

// Threads: confined to one thread, but for visible_stops() and in_guest().
class Vcpu {
 public:
  explicit Vcpu(const VcpuParts& parts) : context_(parts) {}

  // Puts the boot vCPU at the image's entry point.
  Status boot(const BootState& state);
  // Puts another vCPU into the state after INIT: it waits for a STARTUP message.
  Status reset();

  // Runs up to the next stop, or less. Errors: whatever ended that early; the vCPU cannot be continued then.
  // kGuest if it was given up (ForcedExit::give_up()).
  enum class Advance {
    kOn,       // it went on, and can go on
    kStepped,  // the same: one instruction has been carried out, nothing else has happened
    kLater,    // it stands still until other vCPUs have done something
    kLeft,     // it has left the machine
    kCaught,   // a watch caught it; only restore() leads on
  };
  Result<Advance> advance() { return go(std::nullopt); }
  // As advance(), but if one instruction can be carried out alone (vmm/step/step_plan.h), no more than that
  // is executed: kStepped. The delivery of an event is a step, too: to the first instruction of its handler.
  // The clock stops the vCPU at tick `next`.
  Result<Advance> step(Ticks next) { return go(next); }
  // Whether the last of these was kStepped.
  [[nodiscard]] bool stepped() const { return last_ == Advance::kStepped; }
  // How many steps nothing could carry out alone, which ran on to the vCPU's next stop or tick.
  [[nodiscard]] uint64_t coarse_steps() const { return stepper_.coarse_steps(); }
  [[nodiscard]] bool is_halted() const { return context_.is_halted(); }
  // Whether it stands at the end of a stop, where something may happen to it; not so at a fault, and after a
  // step.
  [[nodiscard]] bool at_position() const { return std::holds_alternative<AtPosition>(context_.standing()); }
  // Whether it has stopped in the middle of an instruction, for a page; also after a step.
  [[nodiscard]] bool at_fault() const;
  [[nodiscard]] bool is_between_positions() const;
  // In the middle of an instruction that KVM emulates, whose access waits for its page. KVM's emulator writes
  // last: with a write the registers are those behind the instruction.
  [[nodiscard]] std::optional<PhysicalAccess> access_under_way() const;
  // How many stops it has completed, at faults those before the instruction; for comparing with before.
  [[nodiscard]] uint64_t completed_stops() const { return context_.completed_stops(); }

  // For debugging.
  using Verdict = WatchVerdict;
  using Watch = VcpuWatch;
  // Empty: nobody is asked.
  void watch(Watch watch) { context_.watch() = std::move(watch); }
  // Whether save() is possible: not in the middle of an exit, where KVM holds what nobody can read.
  [[nodiscard]] bool can_be_saved() const;
  // Requires: can_be_saved(). Errors: kHost.
  [[nodiscard]] Result<VcpuState> save(std::span<const uint32_t> msrs);
  // Of this vCPU, or of an equal one of another machine. Also undoes leaving. Errors: kHost; kDamaged if it
  // is none of such a vCPU.
  Status restore(const VcpuState& state);
  // For debugging. From here on what this vCPU does is no part of the recorded run: `journal` answers it,
  // which outlives that, and it goes on even if it had left. Until restore(). (replay/debug/diversion.h)
  void divert(Journal& journal);
  // Of a diverted vCPU, before its registers are changed: what it was in the middle of is dropped, with
  // events that were on their way into the guest, and it does not halt any more. Errors: kUsage if it has not
  // been started; kHost.
  Status drop_what_is_under_way();
  // What a device has yet to be told, which waits for the turn.
  [[nodiscard]] const std::optional<log::Input>& waiting_for_turn() const { return injector_.input(); }
  // What its local APIC's timer was set to, if it runs.
  [[nodiscard]] std::optional<ArmTimer> running_timer() const {
    return context_.parts().apic.running_timer();
  }
  // How many stops it has made, as seen from another thread; whether it executes guest code. Threads: any.
  [[nodiscard]] uint64_t visible_stops() const { return context_.visible_stops(); }
  [[nodiscard]] bool in_guest() const { return in_guest_.load(std::memory_order_relaxed); }

  [[nodiscard]] const VcpuStatistics& statistics() const { return context_.statistics(); }
  [[nodiscard]] Position position() const { return context_.position(); }
  // The digest of the complete register state. After it has left.
  [[nodiscard]] uint64_t final_digest() const { return final_digest_; }
  [[nodiscard]] Result<kvm_regs> registers() { return context_.kvm().registers(); }
  // Of the complete register state, now. Errors: kHost.
  [[nodiscard]] Result<uint64_t> digest();

 private:
  void visit(StateVisitor& visitor);
  Result<Advance> go(std::optional<Ticks> step_until);
  // From where it stands; kStepped is the caller's to tell from `stepped`.
  Result<Flow> go_on(std::optional<Ticks> step_until, bool& stepped);
  Result<bool> is_ready(Flow& flow);
  Result<Flow> enter();
  // As far as the clock is set.
  Result<Flow> run_guest();
  // With what it was entered for, or a step on the way.
  Result<Flow> exited(ExitKind exit);
  // Deals with an exit to its end. `anew`: it was begun before.
  Result<Flow> carry_out(ExitKind exit, bool anew);
  Result<Flow> interrupted();
  Result<Flow> at_breakpoint(const BreakpointExit& at);
  Result<Flow> step_over();
  Result<Flow> stop_in_user_mode(const UserStop& stop);
  void stand_in(ExitKind exit);
  Status drop_exit();
  Status leave();

  VcpuContext context_;
  FaultResolver faults_{context_};
  ExitHandlers handlers_{context_, faults_};
  Injector injector_{context_};
  VcpuStepper stepper_{context_, faults_};
  Advance last_ = Advance::kOn;
  bool left_ = false;
  uint64_t final_digest_ = 0;
  std::atomic<bool> in_guest_{false};
};

}  // namespace reprise::vmm
