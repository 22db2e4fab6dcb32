// One vCPU's local APIC, in xAPIC (memory-mapped) mode.
//
// Everything between vCPUs crosses in user space, as messages. The sender's APIC names the receivers and
// returns the messages as effects; where in the receiver's history a message arrives is a decision that the
// receiver's journal makes and logs; there accept() puts it into this model. Interrupts to itself never leave
// the APIC: they follow from the guest's write, so they need no decision and no log.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/units.h"
#include "log/event.h"
#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kLocalApicBase = 0xfee00000;
inline constexpr uint64_t kLocalApicBytes = kPageSize;

// The shortest period of a periodic timer: a guest that asks for less would have its vCPU do nothing but
// take timer messages. The value is that of KVM's own APIC (module parameter min_timer_period_us).
inline constexpr uint64_t kMinTimerPeriodNs = 200'000;

// Everything that a LocalApic remembers. All words, so that equal states are equal bytes.
struct LocalApicState {
  enum Lvt : uint32_t { kTimer, kThermal, kPerformance, kLint0, kLint1, kError, kLvtCount };

  uint32_t task_priority = 0;
  uint32_t spurious_vector = 0xff;
  uint32_t error_status = 0;    // what the guest reads
  uint32_t error_detected = 0;  // what its next write to the register will move there
  uint32_t command_low = 0;
  uint32_t command_high = 0;
  std::array<uint32_t, kLvtCount> lvt = {0x10000, 0x10000, 0x10000, 0x10000, 0x10000, 0x10000};
  uint32_t timer_initial = 0;
  uint32_t timer_divide = 0;
  uint32_t timer_running = 0;        // 0 or 1
  uint32_t nmi_latched = 0;          // 0 or 1
  uint32_t waiting_for_startup = 0;  // 0 or 1: the vCPU executes nothing before a startup message
  std::array<uint32_t, 8> in_service = {};
  std::array<uint32_t, 8> requested = {};
  bool operator==(const LocalApicState&) const = default;
};

// Modelled: ID, priorities, fixed interrupts, NMI, INIT, STARTUP, ICR with all shorthands, error register,
// one-shot and periodic timer on a bus clock of 1 GHz. Different from hardware, on purpose:
//  - the logical ID is fixed: bit n for vCPU n below 8, none from there on, flat model. The sender has to
//  know the
//    receivers of a message, and another vCPU's LDR would be state shared between vCPUs. LDR and DFR read so.
//  - lowest priority means the lowest-numbered vCPU of those addressed;
//  - every interrupt is edge-triggered (TMR is zero), SMI and ExtINT are ignored, no TSC-deadline timer;
//  - a new divisor or timer mode restarts a running timer from its initial count;
//  - INIT and STARTUP never reach their sender, and INIT puts vCPU 0, too, into waiting for STARTUP;
//  - the ID cannot be changed, and there is no CMCI entry.
//
// Threads: confined to its vCPU's thread.
// Source: Intel SDM vol. 3, chapter 11 "Advanced Programmable Interrupt Controller (APIC)".
class LocalApic final : public IoHandler {
 public:
  // What the vCPU itself has to do about a message.
  enum class Action : uint8_t {
    kNone,     // nothing beyond looking at pending_vector() and nmi_pending()
    kReset,    // INIT: put the registers into their INIT state and wait
    kStartup,  // begin in real mode at (the message's vector) * 4096
  };
  struct Accepted {
    Action action = Action::kNone;
    Effects effects;
  };

  // After power-on vCPU 0 runs, all others wait for STARTUP. Requires: id < vcpus <= kMaxVcpus (checked).
  LocalApic(VcpuId id, uint32_t vcpus);

  // Registers are 32 bits wide and 16 bytes apart. A read may be a part of one; beyond its end are zeros.
  // A write has to start at a register, and its first 32 bits count; shorter or misaligned ones are lost.
  // A read of the current count of a running timer asks for kTimerCount (counts left; more than the initial
  // count is taken as the initial count). Errors: those of `context`.
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  // Effects: SendMessage (never to this vCPU), ArmTimer, DisarmTimer. Errors: none.
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;

  // A message has arrived. Dropped: fixed interrupts while the APIC is software-disabled, timer messages
  // while no timer runs, STARTUP to a vCPU that is not waiting. Effects: DisarmTimer, if INIT stopped a
  // running timer.
  Accepted accept(const log::ApicMessage& message);

  // The interrupt to inject as soon as the vCPU takes interrupts: the highest one requested, if its class is
  // above the processor priority.
  [[nodiscard]] std::optional<uint8_t> pending_vector() const;
  // Injects it: the vector that pending_vector() gives moves from requested to in service. None if there is
  // none.
  std::optional<uint8_t> acknowledge();

  [[nodiscard]] bool nmi_pending() const {
    return state_.nmi_latched != 0 && state_.waiting_for_startup == 0;
  }
  // True once for each latched NMI (a second one that arrives before is lost, as in hardware).
  bool take_nmi();
  [[nodiscard]] bool waiting_for_startup() const { return state_.waiting_for_startup != 0; }

  // What set the timer going, if it runs: how much of that has passed, only the world knows.
  [[nodiscard]] std::optional<ArmTimer> running_timer() const;

  // CR8 is the upper half of the task priority. Source: SDM vol. 3, 11.8.6.
  [[nodiscard]] uint8_t cr8() const { return static_cast<uint8_t>(state_.task_priority >> 4 & 0xf); }
  void set_cr8(uint8_t value) { state_.task_priority = (value & 0xfu) << 4; }

  [[nodiscard]] const LocalApicState& state() const { return state_; }
  // Any state is safe to set: fields are masked where they are used.
  void set_state(const LocalApicState& state) { state_ = state; }
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

 private:
  Result<uint32_t> read_register(uint64_t reg, DeviceContext& context);
  Effects write_register(uint64_t reg, uint32_t value);
  void write_spurious_vector(uint32_t value);
  Effects write_lvt(uint32_t index, uint32_t value);
  Effects write_timer_initial(uint32_t value);
  [[nodiscard]] ArmTimer arm_timer() const;
  Effects send_command();
  [[nodiscard]] uint32_t addressees() const;
  [[nodiscard]] uint32_t processor_priority() const;
  void end_of_interrupt();
  void request(uint32_t vector);
  void raise_lvt(LocalApicState::Lvt index);
  void report_error(uint32_t bit);
  [[nodiscard]] bool enabled() const;

  uint32_t id_;
  uint32_t vcpus_;
  LocalApicState state_;
};

}  // namespace reprise::vmm
