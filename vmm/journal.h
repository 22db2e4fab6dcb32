// The one seam between a guest and the outside world. A guest is a pure function of its initial state and of
// what comes through here: a recording journal takes each answer from the world and writes it down
// (vmm/record/record_journal.h), a replaying one takes it from the log (replay/replay_journal.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "base/result.h"
#include "base/units.h"
#include "ept/view.h"
#include "log/event.h"
#include "vmm/device/device.h"

namespace reprise::vmm {

// Why a machine stopped. Numbers as in log/schema.proto's Reason; kLogEnded is a replay's alone.
enum class StopReason { kGuestExit = 1, kInterrupted = 2, kAllHalted = 3, kGuestError = 4, kLogEnded = 100 };

// The sentence for kAllHalted.
inline constexpr std::string_view kNothingCanWake =
    "every vCPU is halted and no timer is running: nothing can wake the guest";

struct MachineStop {
  StopReason reason = StopReason::kGuestExit;
  uint32_t status = 0;  // kGuestExit: what the guest wrote to the exit port
  std::string message;  // kGuestError: one sentence
};

// Where a vCPU is stopped that makes no stop of its own: in user mode in a loop that waits, or at an address;
// with a clock that names every place, at any instruction.
using UserStop = std::variant<log::Spin, log::UserBreakpoint, log::Preemption>;

// The machine is stopping: the vCPU executes nothing any more.
struct Leave {};
// Another vCPU comes first (replay/total_order.h): the vCPU stands still, and asks again when it is its turn.
struct Later {};
using AsyncEvent = std::variant<log::ApicMessage, log::Input, Leave, Later>;

// What came of asking for pages.
enum class Acquired {
  kGranted,
  kStopping,  // the machine stops here, and the vCPU leaves without the pages
  kLater,  // another vCPU comes first: the vCPU stands still, and asks again for the same when it is its turn
};

// One vCPU's journal. Threads: confined to the vCPU's thread.
class Journal : public ValueSource {
 public:
  // The vCPU has come to this position; all other calls mean it.
  void arrive(const Position& at) { at_ = at; }

  // --- async: what happens to this vCPU here that it did not ask for ---
  // The next thing that is due at this position, or nothing. Pages that are due to be lost are lost inside.
  virtual Result<std::optional<AsyncEvent>> next_async() = 0;
  // The vCPU executes nothing until something asynchronous happens: returns when next_async() has something.
  virtual Status wait() = 0;
  // At which tick, at the latest, the vCPU must stop next to see what is due.
  virtual Ticks next_stop() = 0;
  // Whether that is a place that has to be found, instead of one as good as the next.
  [[nodiscard]] virtual bool stops_exactly() const { return false; }
  // The guest waits for something that another vCPU has to do: whoever wants what this vCPU has, gets it at
  // this position.
  virtual void yield() = 0;
  // Whether the registers at the next position are asked for; those of a position, as a digest that leaves
  // out the count of ticks.
  [[nodiscard]] virtual bool wants_registers() const { return false; }
  virtual void look_at(Gva /*rip*/, uint64_t /*registers*/) {}
  // The vCPU is about to execute guest code, at this moment of the host's clock; it has done so.
  virtual void entering(uint64_t /*now_ns*/) {}
  // `faulted`: up to an instruction that lacks a page.
  virtual void exited(uint64_t /*now_ns*/, bool /*faulted*/) {}
  // True if somebody wants the vCPU to stop since next_async(). Call after arming the clock.
  [[nodiscard]] virtual bool kicked() const = 0;

  // Somebody wants this vCPU, which has come to no stop for a while: whether it may look for a place to be
  // stopped at (vmm/clock/spin.h, vmm/clock/user_breakpoints.h).
  [[nodiscard]] virtual bool may_stop_in_user_mode() const = 0;
  // Where it is to be stopped after this position; none: it goes on to its next stop.
  virtual Result<std::optional<UserStop>> next_user_stop() = 0;
  // It was stopped there.
  virtual Status stopped_in_user_mode(const UserStop& stop) = 0;

  // --- order: who gets a page next ---
  // This vCPU needs `needed` (sorted, each page once, none granted yet): grants them in its view.
  // `again`: the same instruction has asked before and has not retired.
  virtual Result<Acquired> acquire(std::span<const PageRight> needed, bool again) = 0;
  // The vCPU is about to execute: whether nothing is known of what comes after this position, so that it
  // leaves here. One that makes no stop any more would else execute for ever.
  virtual bool is_over() { return false; }
  // The same: whether others are to come first, so that it stands still here. Asked again before it goes on.
  [[nodiscard]] virtual bool others_first() const { return false; }
  // A number that changes with each ticket that is taken, where all are taken in one order: what happens to a
  // vCPU at a position, and what it executes then, are two moments there, each with a name of its own.
  [[nodiscard]] virtual uint64_t moment() const { return 0; }

  // --- checks ---
  // A deterministic stop is complete; `registers` is the digest of the registers after it.
  virtual Status stopped(uint64_t registers) = 0;
  // The same stop, one of those at which the whole machine is compared: the digest of memory, devices and the
  // vCPU's local APIC.
  virtual Status compared_machine(uint64_t digest) = 0;
  // The vCPU leaves the machine.
  virtual Status ended(uint64_t registers) = 0;

  // --- effects on the world; nothing comes back ---
  // SendMessage, ArmTimer, DisarmTimer, SetTick. StopMachine goes through stop_machine().
  virtual void perform(const Effect& effect) = 0;
  virtual void stop_machine(const MachineStop& stop) = 0;

 protected:
  [[nodiscard]] const Position& at() const { return at_; }
  // A value went to the guest. All values so far are part of the digests that are logged, so that a changed
  // one shows even where the guest does nothing with it.
  void note_input(uint64_t value) { inputs_ = (inputs_ ^ value) * 0x9e3779b97f4a7c15ull + (inputs_ >> 29); }
  // The same for something that happened to the vCPU at this position: a forged position shows even where it
  // makes no difference.
  void note_async(uint64_t what) {
    note_input(at_.stops);
    note_input(at_.ticks.raw);
    note_input(what);
  }
  void note_async(const UserStop& stop) {
    note_async(std::visit([](const auto& at) { return at.registers; }, stop));
  }
  void note_async(const log::ApicMessage& message) { note_async(message.vector); }
  void note_async(const log::Input& input) { note_async(log::digest_of(input)); }
  [[nodiscard]] uint64_t with_inputs(uint64_t registers) const { return registers ^ inputs_; }
  [[nodiscard]] uint64_t inputs() const { return inputs_; }
  void set_inputs(uint64_t inputs) { inputs_ = inputs; }

 private:
  Position at_;
  uint64_t inputs_ = 0;
};

}  // namespace reprise::vmm
