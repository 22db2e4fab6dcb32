// One vCPU: runs guest code until it stops, and deals with the stop. Data walks one way: guest -> stop ->
// handler -> journal.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/clock/clock.h"
#include "vmm/device/io_map.h"
#include "vmm/device/irq/local_apic.h"
#include "vmm/device/pc_board.h"
#include "vmm/guest/bare/pvh.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest_memory.h"
#include "vmm/journal.h"
#include "vmm/kvm/kvm.h"
#include "x86/access.h"

namespace reprise::vmm {

// What a vCPU is made of; all of it outlives the vCPU and is used by its thread alone.
struct VcpuParts {
  VcpuId id;
  KvmVcpu& kvm;
  ViewMemory& memory;
  Clock& clock;
  Journal& journal;
  LocalApic& apic;
  const IoMap& io;
  std::optional<Gpa> trap;   // the page that a safepoint touches to stop
  PageNumber first_token;    // tokens follow RAM: the turn, then the shared devices
  bool takes_turns = false;  // serial mode: executes only while it owns the turn
  x86::AccessOptions access;
  bool compare_mxcsr = true;  // as MachineOptions says
  // The devices of a PC, with their interrupts; none: lines that devices raise lead nowhere. Needs
  // takes_turns: who has the turn has all devices.
  PcBoard* board = nullptr;
  // What was patched in the guest, if it is a Linux kernel (vmm/guest/linux/kernel_patch.h).
  const KernelPatches* patches = nullptr;
  // Where page tables must lie, if the host does not show this vCPU what others write into them.
  std::optional<PrivateRange> own_tables;
  // At every k-th stop, k being `digest_every`, the whole machine is compared by what this returns; 0: never.
  // Needs takes_turns: who has the turn is the only one that changes memory and devices.
  uint64_t digest_every = 0;
  std::function<Result<uint64_t>()> digest;
};

// Token numbers, counted from VcpuParts::first_token.
inline constexpr uint64_t kTurnToken = 0;
inline constexpr uint64_t kFirstDeviceToken = 1;

// What a vCPU's run came to, beside its effects.
struct VcpuStatistics {
  uint64_t stops = 0;
  uint64_t traps = 0;
  uint64_t faults = 0;
  uint64_t port_io = 0;
  uint64_t mmio = 0;
  uint64_t halts = 0;
  uint64_t windows = 0;  // interrupt windows
  uint64_t msrs = 0;
  uint64_t times = 0;  // time-stamp counter reads
  uint64_t pauses = 0;
  uint64_t spins = 0;           // stops in loops
  uint64_t modules = 0;         // of the kernel, that were loaded
  uint64_t module_patches = 0;  // instructions that were replaced in them
  uint64_t interrupts = 0;
  uint64_t host_faults = 0;
  uint64_t decode_ns = 0;
};

// A vCPU between two stops, without what belongs to its journal and to its memory.
struct VcpuState {
  KvmVcpuState kvm;
  LocalApicState apic;
  // As the members of Vcpu of these names.
  uint64_t stops = 0, compared_stops = 0, digest = 0;
  int after = 0;
  bool halted = false, interrupts_enabled = false;
  std::optional<uint64_t> faulting;
  std::optional<std::vector<PageRight>> faulting_for;
  std::optional<log::ApicMessage> for_board;
  VcpuStatistics statistics;
};

// Threads: confined to one thread, but for abandon().
class Vcpu {
 public:
  explicit Vcpu(const VcpuParts& parts) : parts_(parts) {}

  // Puts the boot vCPU at the image's entry point.
  Status boot(const BootState& state);
  // Puts another vCPU into the state after INIT: it waits for a STARTUP message.
  Status reset();

  // Runs until the machine stops. Requires: a journal that never says "later".
  // Errors: whatever ended the run early; the vCPU cannot be continued then.
  Status run();
  // One part of run(), for who runs several vCPUs in turns: up to the next stop, or less. Errors: as run().
  enum class Advance {
    kOn,      // it went on, and can go on
    kLater,   // it stands still until other vCPUs have done something
    kLeft,    // it has left the machine
    kCaught,  // a watch caught it; only restore() leads on
  };
  Result<Advance> advance();
  // As advance(), but if one instruction can be carried out alone (vmm/step/step_plan.h), no more than that
  // is executed; if it did not stop, stepped(). The delivery of an event is a step, too: to the first
  // instruction of its handler. The clock stops the vCPU at tick `next`.
  Result<Advance> step(Ticks next);
  [[nodiscard]] bool stepped() const { return stepped_; }
  // How many steps nothing could carry out alone, which ran on to the vCPU's next stop or tick.
  [[nodiscard]] uint64_t coarse_steps() const { return coarse_steps_; }
  [[nodiscard]] bool is_halted() const { return halted_; }
  // Whether it stands at the end of a stop, where something may happen to it; not so at a fault, and after a
  // step.
  [[nodiscard]] bool at_position() const { return after_ == After::kPosition; }
  // Whether it has stopped in the middle of an instruction, for a page; also after a step.
  [[nodiscard]] bool at_fault() const { return after_ == After::kFault; }
  [[nodiscard]] bool is_nowhere() const { return after_ == After::kNowhere; }
  // How many stops it has completed, at faults those before the instruction; for comparing with before.
  [[nodiscard]] uint64_t completed_stops() const { return completed_stops_; }
  // For debugging.
  enum class Verdict {
    kHandle,  // the exit is one like others
    kDone,    // it was dealt with, and nothing of it counts
    kCaught,  // advance() ends with kCaught
  };
  struct Watch {
    // Before each entry.
    std::function<Status()> entry;
    // Asked about each exit before it is handled.
    std::function<Result<Verdict>(ExitKind)> exit;
    // Asked when KVM has to be answered again before the instruction of a stop is complete: true is kCaught.
    // Where it emulates, that may be the next instruction already.
    std::function<bool(ExitKind)> part;
    // Told of each access to RAM that is made for the guest, with the page granted: true is kCaught.
    std::function<Result<bool>(Gpa, uint64_t bytes, bool is_write)> access;
  };
  // For debugging; empty: nobody is asked.
  void watch(Watch watch) { watch_ = std::move(watch); }
  // Whether save() is possible: not in the middle of an exit, where KVM holds what nobody can read.
  [[nodiscard]] bool can_be_saved() const { return !unfinished_.has_value() && !left_; }
  // Requires: can_be_saved(). Errors: kHost.
  [[nodiscard]] Result<VcpuState> save(std::span<const uint32_t> msrs);
  // Of this vCPU, or of an equal one of another machine. Also undoes leaving. Errors: kHost.
  Status restore(const VcpuState& state);
  // For debugging. From here on what this vCPU does is no part of the recorded run: `journal` answers it,
  // which outlives that, and it goes on even if it had left. Until restore().
  void divert(Journal& journal);
  // Of a diverted vCPU, before its registers are changed: what it was in the middle of is dropped, with
  // events that were on their way into the guest, and it does not halt any more. Errors: kUsage if it has not
  // been started; kHost.
  Status drop_what_is_under_way();
  // What its local APIC's timer was set to, if it runs.
  [[nodiscard]] std::optional<ArmTimer> running_timer() const { return parts_.apic.running_timer(); }
  // Makes run() fail soon although the guest passes no safepoint; followed by kKickSignal to the vCPU's
  // thread. Threads: any.
  void abandon();

  // How many stops it has made, as seen from another thread; whether it executes guest code. Threads: any.
  [[nodiscard]] uint64_t visible_stops() const { return visible_stops_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool in_guest() const { return in_guest_.load(std::memory_order_relaxed); }

  [[nodiscard]] const VcpuStatistics& statistics() const { return statistics_; }
  [[nodiscard]] Position position() const { return {stops_, parts_.clock.now()}; }
  // The digest of the complete register state. After run().
  [[nodiscard]] uint64_t final_digest() const { return final_digest_; }
  [[nodiscard]] Result<kvm_regs> registers() { return parts_.kvm.registers(); }
  // Of the complete register state, now. Errors: kHost.
  [[nodiscard]] Result<uint64_t> digest();

 private:
  // Where the vCPU stands: at a position; at a fault whose page it has got, or at an instruction that others
  // were stepped up to; or somewhere that has no name, interrupted by the host.
  enum class After { kPosition, kFault, kNowhere };

  Status go_on();
  Result<bool> get_ready();
  Result<bool> step_over();
  bool step_coarsely();
  [[nodiscard]] bool interrupt_window_is_open(const kvm_regs& regs, const kvm_vcpu_events& events) const;
  Status leave_shadow(const kvm_vcpu_events& before, uint8_t shadow);
  Status finish_exit();
  Status drop_exit();
  Status tell_board();
  Status take_async();
  Status startup(uint8_t vector);
  [[nodiscard]] bool must_wait();
  Status inject();
  Status take_turn();
  Status enter();
  Status carry_out(ExitKind exit);
  Status interrupted();
  Result<bool> handle(ExitKind exit);
  Status handle_port();
  Status handle_mmio();
  Status handle_halt();
  Status handle_window();
  Status step_over_shadow();
  Status handle_msr(bool is_write);
  Status handle_patched(uint16_t port, std::span<uint8_t> data);
  Status answer_time_stamp(std::span<uint8_t> data, bool with_vcpu);
  Status answer_user_fault();
  Status take_module();
  Status write_cr4();
  Status handle_fault(bool emulator_gave_up);
  Status take_missing(std::vector<PageRight> needed, bool again);
  Result<x86::AccessSet> touched_pages(const kvm_regs& regs, const kvm_sregs& sregs);
  [[nodiscard]] std::vector<PageRight> missing(const x86::AccessSet& set) const;
  Result<bool> acquire(std::span<const PageRight> needed, bool again);
  Result<bool> acquire(PageNumber page, Right right);
  Status ram_access(kvm_run& run);
  Status device_access(IoSpace space, uint64_t address, unsigned bytes, bool is_write, uint8_t* data);
  Status perform(const Effects& effects);
  void count_stop();
  Status end_stop();
  Status check_tables();
  Status guest_error(const std::string& what);
  [[nodiscard]] bool is_trap(const kvm_run& run) const;
  Status leave();

  VcpuParts parts_;
  Journal* journal_ = &parts_.journal;  // another one in a diversion
  uint64_t stops_ = 0;
  uint64_t compared_stops_ = 0;  // stops_ when digest_ was last extended
  uint64_t digest_ = 0;
  uint64_t final_digest_ = 0;
  After after_ = After::kPosition;
  bool halted_ = false;
  bool leaving_ = false;  // the machine stopped while this vCPU waited for a page
  bool left_ = false;
  // The vCPU stands still until it is its turn: at a position; at a fault, with what that needs; or in the
  // middle of an exit, whose handler begins anew.
  bool later_ = false;
  std::optional<std::vector<PageRight>> faulting_for_;
  std::optional<ExitKind> unfinished_;
  bool counted_ = false;  // the stop that is handled anew
  std::optional<log::ApicMessage> for_board_;
  bool interrupts_enabled_ = false;  // at the last position
  bool faults_ = false;  // the instruction of this stop ends with an exception, which KVM will deliver
  std::optional<uint64_t> faulting_;  // digest of the registers at the last fault, if nothing retired since
  unsigned host_retries_ = 0;
  Watch watch_;
  bool caught_ = false;
  std::optional<Ticks> step_until_;  // during step()
  bool stepped_ = false;
  uint64_t coarse_steps_ = 0;
  uint64_t completed_stops_ = 0;
  std::atomic<bool> abandoned_{false};
  std::atomic<bool> in_guest_{false};
  std::atomic<uint64_t> visible_stops_{0};
  VcpuStatistics statistics_;
};

}  // namespace reprise::vmm
