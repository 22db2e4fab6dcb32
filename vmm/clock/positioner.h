// Where one vCPU is in its own history, and what brings it to a place there.
//
// A position is a number of deterministic exits and of ticks (base/units.h). A positioner counts the ticks,
// and answers three questions: where is the vCPU now; run it no further than this position; bring it to a
// position soon. What a guest offers for that differs, so there are several; callers ask for the trait that
// they mean.
#pragma once

#include <optional>
#include <variant>

#include "base/result.h"
#include "base/units.h"
#include "ept/mailbox.h"
#include "log/event.h"
#include "vmm/clock/flat_loop.h"
#include "vmm/journal.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// How far the vCPU may run.
struct Limit {
  Ticks until = kNoTick;         // it stops as soon as it has counted so many
  bool interrupt_waits = false;  // it stops as soon as the guest can take an interrupt, or before
  bool exact = false;            // at `until` is a place that has to be found
};

// Where a vCPU is whose KVM_RUN was interrupted.
struct BetweenPositions {};  // at no place that replay could find; it goes on
struct AnyPlace {};          // nothing is recorded, so any place will do
struct StepOver {};          // the instruction there is to be carried out alone
// Spin, Preemption: a stop, at that place.
using Interruption = std::variant<BetweenPositions, AnyPlace, StepOver, log::Spin, log::Preemption>;

// What an exit is to a positioner that puts breakpoints into code of user mode; UserBreakpoint: a stop, at
// that place; StepOver: the vCPU stands at one and goes on.
struct OtherExit {};  // it is about something else
using BreakpointExit = std::variant<OtherExit, BetweenPositions, StepOver, log::UserBreakpoint>;

// Threads: kick() from any; the rest is confined to the vCPU's thread.
class Positioner : public ept::Kickable {
 public:
  // --- where is it now ---
  // The count at the present stop. Exact.
  [[nodiscard]] virtual Ticks ticks() const = 0;

  // --- run it no further than this ---
  // Before each entry into the guest. Sequentially consistent: a kick after it is not lost (Mailbox::kick()).
  virtual void arm(const Limit& limit) = 0;
  // The nearest one that stops it surely, where code without positions can be stopped at all.
  [[nodiscard]] virtual std::optional<Ticks> nearest_limit() const { return std::nullopt; }

  // --- bring it to a position soon ---
  // kick() does it where the guest passes safepoints. Whether it has code that passes none and makes no
  // exits, so that only an interruption shows whether it waits for others.
  [[nodiscard]] virtual bool needs_interruptions() const = 0;
  // KVM_RUN was interrupted. `journal` says whether the vCPU is wanted, and where replay has to find it.
  // Errors: kHost; those of the journal.
  virtual Result<Interruption> interrupted(Journal& journal) = 0;

  // --- breakpoints in user mode (vmm/clock/user_breakpoints.h), where there are any ---
  // The vCPU is entered now: after arm(). Errors: kHost; those of the journal.
  virtual Status entering(Journal& /*journal*/) { return {}; }
  // It has exited, and nobody has looked at that yet. Errors: the same.
  virtual Result<BreakpointExit> exited(ExitKind /*exit*/, Journal& /*journal*/) {
    return BreakpointExit(OtherExit{});
  }
  // Whether it stands where replay has to stop it. Errors: the same.
  virtual Result<std::optional<log::UserBreakpoint>> is_there(Journal& /*journal*/) {
    return std::optional<log::UserBreakpoint>();
  }

  // --- traits ---
  // Whether the vCPU stops for an interrupt that waits when KVM says that the guest can take it. Else it
  // stops at a tick, and looks.
  [[nodiscard]] virtual bool uses_interrupt_windows() const = 0;
  // The program that kept the vCPU in user mode longest while others waited, if one did for long.
  [[nodiscard]] virtual std::optional<FlatLoop> flat_loop() const { return std::nullopt; }
  // Whether each instruction has a position, so that ticks count between two stops as well.
  [[nodiscard]] virtual bool names_every_place() const { return false; }
  // Whether replay can find its positions.
  [[nodiscard]] virtual bool is_recordable() const { return true; }
};

}  // namespace reprise::vmm
