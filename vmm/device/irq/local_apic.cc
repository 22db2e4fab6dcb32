#include "vmm/device/irq/local_apic.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "base/check.h"
#include "vmm/device/irq/local_apic_registers.h"

namespace reprise::vmm {
namespace {

using apic::Delivery;
using apic::Shorthand;
using log::ApicMessage;
using log::ApicMessageKind;

static_assert(std::has_unique_object_representations_v<LocalApicState>, "digested as bytes");

constexpr uint32_t kFlatModel = 0xffffffff;  // DFR, 11.6.2.2
constexpr uint32_t kLogicalIds = 8;          // bits in a flat logical destination

// What a guest can set in each LVT entry (11.5.1, figure 11-8).
constexpr std::array<uint32_t, LocalApicState::kLvtCount> kLvtBits = {
    apic::kLvtMasked | apic::kTimerPeriodic | 0xff,  // timer; bit 18, TSC-deadline, is not offered
    apic::kLvtMasked | 0x7ff,                        // thermal
    apic::kLvtMasked | 0x7ff,                        // performance
    apic::kLvtMasked | 0xa7ff,                       // LINT0: polarity and trigger mode, too
    apic::kLvtMasked | 0xa7ff,                       // LINT1
    apic::kLvtMasked | 0xff,                         // error
};

// The highest bit set of 256, if any.
std::optional<uint32_t> highest(const std::array<uint32_t, 8>& bits) {
  for (uint32_t word = 8; word-- > 0;)
    if (bits[word] != 0) return word * 32 + (31 - static_cast<uint32_t>(std::countl_zero(bits[word])));
  return std::nullopt;
}

void set_bit(std::array<uint32_t, 8>& bits, uint32_t n) {
  bits[n / 32 % 8] |= 1u << (n % 32);
}
void clear_bit(std::array<uint32_t, 8>& bits, uint32_t n) {
  bits[n / 32 % 8] &= ~(1u << (n % 32));
}

// Divide configuration to divisor: 0 to 7 mean 2 to 128 and 1. Source: 11.5.4, figure 11-10.
uint32_t divisor(uint32_t divide) {
  const uint32_t code = (divide & 3) | (divide >> 1 & 4);
  return code == 7 ? 1 : 2u << code;
}

// One of eight consecutive registers that starts at `first`, if `reg` is one of them.
std::optional<uint32_t> word_of(uint64_t first, uint64_t reg) {
  if (reg < first || reg >= first + 0x80) return std::nullopt;
  return static_cast<uint32_t>((reg - first) / 0x10);
}

}  // namespace

LocalApic::LocalApic(VcpuId id, uint32_t vcpus) : id_(id.raw), vcpus_(vcpus) {
  REPRISE_CHECK(id.raw < vcpus && vcpus <= kMaxVcpus);
  state_.waiting_for_startup = id_ == 0 ? 0 : 1;
}

Result<uint64_t> LocalApic::read(uint64_t offset, unsigned /*bytes*/, DeviceContext& context) {
  const uint64_t within = offset & 0xf;
  if (within >= 4) return uint64_t{0};
  TRY_ASSIGN(const uint32_t value, read_register(offset - within, context));
  return uint64_t{value >> (8 * within)};
}

Result<Effects> LocalApic::write(uint64_t offset, unsigned bytes, uint64_t value,
                                 DeviceContext& /*context*/) {
  if ((offset & 0xf) != 0 || bytes < 4) return Effects{};
  return write_register(offset, static_cast<uint32_t>(value));
}

Result<uint32_t> LocalApic::read_register(uint64_t reg, DeviceContext& context) {
  if (const auto word = word_of(apic::kInService, reg)) return state_.in_service[*word];
  if (word_of(apic::kTriggerMode, reg)) return 0u;
  if (const auto word = word_of(apic::kRequested, reg)) return state_.requested[*word];
  if (reg >= apic::kLvtFirst && reg <= apic::kLvtLast) return state_.lvt[(reg - apic::kLvtFirst) / 0x10];
  switch (reg) {
    case apic::kId:
      return id_ << 24;
    case apic::kVersion:
      return apic::kVersionValue;
    case apic::kTaskPriority:
      return state_.task_priority;
    case apic::kProcessorPriority:
      return processor_priority();
    case apic::kArbitrationPriority:
    case apic::kEndOfInterrupt:
    case apic::kRemoteRead:
      return 0u;  // not in processors since the Pentium 4, or write-only
    case apic::kLogicalDestination:
      return id_ < kLogicalIds ? 1u << (24 + id_) : 0u;
    case apic::kDestinationFormat:
      return kFlatModel;
    case apic::kSpuriousVector:
      return state_.spurious_vector;
    case apic::kErrorStatus:
      return state_.error_status;
    case apic::kCommandLow:
      return state_.command_low;
    case apic::kCommandHigh:
      return state_.command_high;
    case apic::kTimerInitial:
      return state_.timer_initial;
    case apic::kTimerCurrent: {
      if (state_.timer_running == 0) return 0u;
      TRY_ASSIGN(const uint64_t left, context.value(log::Source::kTimerCount));
      return static_cast<uint32_t>(std::min<uint64_t>(left, state_.timer_initial));
    }
    case apic::kTimerDivide:
      return state_.timer_divide;
    default:
      report_error(apic::kIllegalRegister);
      return 0u;
  }
}

Effects LocalApic::write_register(uint64_t reg, uint32_t value) {
  if (reg >= apic::kLvtFirst && reg <= apic::kLvtLast)
    return write_lvt(static_cast<uint32_t>((reg - apic::kLvtFirst) / 0x10), value);
  // ISR, TMR and IRR lie side by side and are read-only.
  if (reg >= apic::kInService && reg < apic::kErrorStatus) return {};
  switch (reg) {
    case apic::kTaskPriority:
      state_.task_priority = value & 0xff;
      return {};
    case apic::kEndOfInterrupt:
      end_of_interrupt();
      return {};
    case apic::kSpuriousVector:
      write_spurious_vector(value);
      return {};
    case apic::kErrorStatus:  // any value: shows what was detected since the last write
      state_.error_status = state_.error_detected;
      state_.error_detected = 0;
      return {};
    case apic::kCommandLow:
      state_.command_low = value & apic::kCommandBits;
      return send_command();
    case apic::kCommandHigh:
      state_.command_high = value & 0xff000000;
      return {};
    case apic::kTimerInitial:
      return write_timer_initial(value);
    case apic::kTimerDivide: {
      const bool changed = divisor(state_.timer_divide) != divisor(value);
      state_.timer_divide = value & apic::kTimerDivideBits;
      return changed && state_.timer_running != 0 ? Effects{arm_timer()} : Effects{};
    }
    case apic::kId:
    case apic::kVersion:
    case apic::kArbitrationPriority:
    case apic::kProcessorPriority:
    case apic::kRemoteRead:
    case apic::kLogicalDestination:
    case apic::kDestinationFormat:
    case apic::kTimerCurrent:
      return {};  // read-only, or fixed (see the class comment)
    default:
      report_error(apic::kIllegalRegister);
      return {};
  }
}

bool LocalApic::enabled() const {
  return (state_.spurious_vector & apic::kSoftwareEnable) != 0;
}

void LocalApic::write_spurious_vector(uint32_t value) {
  state_.spurious_vector = value & apic::kSpuriousBits;
  // 11.4.7.2: disabling masks every LVT entry; what is requested or in service stays.
  if (!enabled())
    for (uint32_t& entry : state_.lvt) entry |= apic::kLvtMasked;
}

Effects LocalApic::write_lvt(uint32_t index, uint32_t value) {
  const uint32_t old = state_.lvt[index];
  state_.lvt[index] = (value & kLvtBits[index]) | (enabled() ? 0 : apic::kLvtMasked);
  const bool mode_changed = ((old ^ state_.lvt[index]) & apic::kTimerPeriodic) != 0;
  if (index == LocalApicState::kTimer && mode_changed && state_.timer_running != 0) return {arm_timer()};
  return {};
}

Effects LocalApic::write_timer_initial(uint32_t value) {
  const bool was_running = state_.timer_running != 0;
  state_.timer_initial = value;
  state_.timer_running = value != 0 ? 1 : 0;
  if (value != 0) return {arm_timer()};
  return was_running ? Effects{DisarmTimer{}} : Effects{};
}

std::optional<ArmTimer> LocalApic::running_timer() const {
  return state_.timer_running != 0 ? std::optional(arm_timer()) : std::nullopt;
}

ArmTimer LocalApic::arm_timer() const {
  const uint32_t count_ns = divisor(state_.timer_divide);  // a bus clock of 1 GHz: one cycle, one nanosecond
  const uint64_t delay = uint64_t{state_.timer_initial} * count_ns;
  if ((state_.lvt[LocalApicState::kTimer] & apic::kTimerPeriodic) == 0)
    return {.delay_ns = delay, .period_ns = 0, .count_ns = count_ns};
  const uint64_t period = std::max(delay, kMinTimerPeriodNs);
  return {.delay_ns = period, .period_ns = period, .count_ns = count_ns};
}

// The vCPUs that the destination field addresses, one bit each. Source: 11.6.2.
uint32_t LocalApic::addressees() const {
  const uint32_t everyone = vcpus_ >= 32 ? ~0u : (1u << vcpus_) - 1;
  const uint32_t destination = state_.command_high >> 24;
  if (destination == apic::kBroadcast) return everyone;
  if ((state_.command_low & apic::kLogicalMode) != 0) return destination & everyone;
  return destination < vcpus_ ? 1u << destination : 0;
}

Effects LocalApic::send_command() {
  const uint32_t command = state_.command_low;
  const auto shorthand = static_cast<Shorthand>(command >> 18 & 3);
  const auto delivery = static_cast<Delivery>(command >> 8 & 7);
  const auto vector = static_cast<uint8_t>(command);
  const uint32_t self = 1u << id_;
  const uint32_t everyone = vcpus_ >= 32 ? ~0u : (1u << vcpus_) - 1;

  uint32_t targets = 0;
  switch (shorthand) {
    case Shorthand::kNone:
      targets = addressees();
      break;
    case Shorthand::kSelf:
      targets = self;
      break;
    case Shorthand::kAll:
      targets = everyone;
      break;
    case Shorthand::kOthers:
      targets = everyone & ~self;
      break;
  }
  // Table 11-3: with "self" and "all including self" only fixed interrupts are valid.
  if ((shorthand == Shorthand::kSelf || shorthand == Shorthand::kAll) && delivery != Delivery::kFixed)
    return {};

  ApicMessage message{ApicMessageKind::kFixed, vector};
  switch (delivery) {
    case Delivery::kLowestPriority:
      targets &= ~targets + 1;  // the lowest bit set
      [[fallthrough]];
    case Delivery::kFixed:
      if (vector < apic::kFirstLegalVector) {
        report_error(apic::kSendIllegalVector);
        return {};
      }
      if ((targets & self) != 0 && enabled()) request(vector);
      break;
    case Delivery::kNmi:
      message = {ApicMessageKind::kNmi, 0};
      if ((targets & self) != 0) state_.nmi_latched = 1;
      break;
    case Delivery::kInit:
      // 11.6.1: INIT level de-assert only synchronised arbitration IDs, and does nothing since the Pentium 4.
      if ((command & apic::kLevelTriggered) != 0 && (command & apic::kLevelAssert) == 0) return {};
      message = {ApicMessageKind::kInit, 0};
      break;
    case Delivery::kStartup:
      message = {ApicMessageKind::kStartup, vector};
      break;
    default:
      return {};  // SMI, ExtINT, reserved
  }

  Effects effects;
  for (uint32_t vcpu = 0; vcpu < vcpus_; ++vcpu)
    if (vcpu != id_ && (targets >> vcpu & 1) != 0) effects.emplace_back(SendMessage{VcpuId(vcpu), message});
  return effects;
}

LocalApic::Accepted LocalApic::accept(const ApicMessage& message) {
  switch (message.kind) {
    case ApicMessageKind::kFixed:
      if (enabled()) request(message.vector);
      return {};
    case ApicMessageKind::kNmi:
      state_.nmi_latched = 1;
      return {};
    case ApicMessageKind::kTimer:
      if (state_.timer_running == 0) return {};
      if ((state_.lvt[LocalApicState::kTimer] & apic::kTimerPeriodic) == 0) state_.timer_running = 0;
      raise_lvt(LocalApicState::kTimer);
      return {};
    case ApicMessageKind::kInit: {
      Accepted accepted{Action::kReset, {}};
      if (state_.timer_running != 0) accepted.effects.emplace_back(DisarmTimer{});
      state_ = {};  // 11.4.7.3: as after power-on, but for the ID
      state_.waiting_for_startup = 1;
      return accepted;
    }
    case ApicMessageKind::kStartup:
      if (state_.waiting_for_startup == 0) return {};
      state_.waiting_for_startup = 0;
      return {Action::kStartup, {}};
  }
  return {};  // a kind that a newer version wrote: the log's reader refuses it, so nothing is lost here
}

uint32_t LocalApic::processor_priority() const {
  // 11.8.3.1: the higher one of the task priority and the class that is being serviced.
  const uint32_t serving = highest(state_.in_service).value_or(0) & 0xf0;
  const uint32_t task = state_.task_priority & 0xff;
  return (task & 0xf0) >= serving ? task : serving;
}

std::optional<uint8_t> LocalApic::pending_vector() const {
  const auto vector = highest(state_.requested);
  if (!vector || *vector >> 4 <= processor_priority() >> 4) return std::nullopt;
  return static_cast<uint8_t>(*vector);
}

std::optional<uint8_t> LocalApic::acknowledge() {
  const auto vector = pending_vector();
  if (vector) {
    clear_bit(state_.requested, *vector);
    set_bit(state_.in_service, *vector);
  }
  return vector;
}

bool LocalApic::take_nmi() {
  if (!nmi_pending()) return false;
  state_.nmi_latched = 0;
  return true;
}

void LocalApic::end_of_interrupt() {
  if (const auto vector = highest(state_.in_service)) clear_bit(state_.in_service, *vector);
}

void LocalApic::request(uint32_t vector) {
  if (vector < apic::kFirstLegalVector) {
    report_error(apic::kReceiveIllegalVector);
    return;
  }
  set_bit(state_.requested, vector);
}

void LocalApic::raise_lvt(LocalApicState::Lvt index) {
  const uint32_t entry = state_.lvt[index];
  if ((entry & apic::kLvtMasked) == 0) request(entry & 0xff);
}

// 11.5.3: the first error after a write to ESR raises the error interrupt, the next ones only set their bits.
void LocalApic::report_error(uint32_t bit) {
  const bool first = state_.error_detected == 0;
  state_.error_detected |= bit;
  const uint32_t entry = state_.lvt[LocalApicState::kError];
  if (!first || (entry & apic::kLvtMasked) != 0) return;
  const uint32_t vector = entry & 0xff;
  if (vector < apic::kFirstLegalVector) {
    state_.error_detected |= apic::kReceiveIllegalVector;
  } else {
    set_bit(state_.requested, vector);
  }
}

}  // namespace reprise::vmm
