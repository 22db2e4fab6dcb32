// The I/O APIC: from a device's line to messages for local APICs.
#pragma once

#include <array>
#include <cstdint>

#include "base/units.h"
#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kIoApicBase = 0xfec00000;
inline constexpr uint64_t kIoApicBytes = kPageSize;
inline constexpr uint32_t kIoApicPins = 24;
inline constexpr uint8_t kPitPin = 2;  // ISA line 0 arrives here; all others at the pin of their number

struct IoApicState {
  std::array<uint64_t, kIoApicPins> entries;  // redirection table
  uint32_t selected = 0;
  uint32_t waiting = 0;  // one bit a pin: an edge that came while the pin was masked
  bool operator==(const IoApicState&) const = default;
};

// Every pin is edge-triggered. Destinations as in LocalApic: physical IDs are vCPU numbers, logical ones the
// flat model's bits of vCPUs 0 to 7; lowest priority means the lowest-numbered vCPU. SMI, INIT and ExtINT are
// ignored. An edge at a masked pin is delivered when the pin is unmasked, as KVM's own model does.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call.
// Source: Intel 82093AA data sheet, chapter 3.
class IoApic final : public IoHandler {
 public:
  explicit IoApic(uint32_t vcpus) : vcpus_(vcpus) { state_.entries.fill(kMasked); }

  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  // Effects: SendMessage, to any vCPU.
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  // A line goes up. Lines that no pin has are ignored.
  Effects raise(uint8_t line);
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

 private:
  static constexpr uint64_t kMasked = 1ull << 16;
  [[nodiscard]] uint32_t read_selected() const;
  Effects write_selected(uint32_t value);
  Effects deliver(uint32_t pin);

  uint32_t vcpus_;
  IoApicState state_;
};

}  // namespace reprise::vmm
