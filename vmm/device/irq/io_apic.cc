#include "vmm/device/irq/io_apic.h"

#include <type_traits>

#include "vmm/device/irq/local_apic_registers.h"

namespace reprise::vmm {
namespace {

static_assert(std::has_unique_object_representations_v<IoApicState>, "digested as bytes");

constexpr uint64_t kSelect = 0x00;
constexpr uint64_t kWindow = 0x10;
constexpr uint32_t kId = 0;
constexpr uint32_t kVersion = 1;
constexpr uint32_t kFirstEntry = 0x10;
constexpr uint32_t kVersionValue = (kIoApicPins - 1) << 16 | 0x11;
// Delivery status (12) and remote IRR (14) are read-only; polarity and trigger mode are kept and not looked
// at.
constexpr uint64_t kWritable = 0xff0000000001afff;
constexpr uint32_t kFixed = 0, kLowestPriority = 1, kNmi = 4;

}  // namespace

Result<uint64_t> IoApic::read(uint64_t offset, unsigned /*bytes*/, DeviceContext& /*context*/) {
  if (offset == kSelect) return state_.selected;
  return offset == kWindow ? read_selected() : uint64_t{0};
}

Result<Effects> IoApic::write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& /*context*/) {
  if (offset == kSelect) state_.selected = static_cast<uint32_t>(value) & 0xff;
  return offset == kWindow && bytes >= 4 ? write_selected(static_cast<uint32_t>(value)) : Effects{};
}

uint32_t IoApic::read_selected() const {
  if (state_.selected == kId) return 0;
  if (state_.selected == kVersion) return kVersionValue;
  const uint32_t word = state_.selected - kFirstEntry;
  if (state_.selected < kFirstEntry || word >= 2 * kIoApicPins) return 0;
  return static_cast<uint32_t>(state_.entries[word / 2] >> (32 * (word % 2)));
}

Effects IoApic::write_selected(uint32_t value) {
  const uint32_t word = state_.selected - kFirstEntry;
  if (state_.selected < kFirstEntry || word >= 2 * kIoApicPins) return {};
  const uint32_t pin = word / 2;
  const unsigned shift = 32 * (word % 2);
  uint64_t& entry = state_.entries[pin];
  entry = ((entry & ~(0xffffffffull << shift)) | uint64_t{value} << shift) & kWritable;
  if ((state_.waiting >> pin & 1) != 0 && (entry & kMasked) == 0) return deliver(pin);
  return {};
}

Effects IoApic::raise(uint8_t line) {
  const uint32_t pin = line == 0 ? kPitPin : line;
  if (pin >= kIoApicPins) return {};
  return deliver(pin);
}

Effects IoApic::deliver(uint32_t pin) {
  const uint64_t entry = state_.entries[pin];
  if ((entry & kMasked) != 0) {
    state_.waiting |= 1u << pin;
    return {};
  }
  state_.waiting &= ~(1u << pin);
  const auto mode = static_cast<uint32_t>(entry >> 8 & 7);
  const auto destination = static_cast<uint32_t>(entry >> 56);
  const uint32_t everyone = vcpus_ >= 32 ? ~0u : (1u << vcpus_) - 1;
  const bool logical = (entry >> 11 & 1) != 0;
  uint32_t targets = 0;
  if (logical || destination == apic::kBroadcast)
    targets = destination == apic::kBroadcast ? everyone : destination & everyone;
  else if (destination < vcpus_)
    targets = 1u << destination;
  if (mode == kLowestPriority) targets &= ~targets + 1;
  if (mode != kFixed && mode != kLowestPriority && mode != kNmi) return {};
  const log::ApicMessage message =
      mode == kNmi ? log::ApicMessage{log::ApicMessageKind::kNmi, 0}
                   : log::ApicMessage{log::ApicMessageKind::kFixed, static_cast<uint8_t>(entry)};
  if (message.kind == log::ApicMessageKind::kFixed && message.vector < 16) return {};
  Effects effects;
  for (uint32_t vcpu = 0; vcpu < vcpus_; ++vcpu)
    if ((targets >> vcpu & 1) != 0) effects.emplace_back(SendMessage{VcpuId(vcpu), message});
  return effects;
}

}  // namespace reprise::vmm
