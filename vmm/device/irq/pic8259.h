// The PC's first interrupt controllers, as far as a kernel that has an I/O APIC looks at them: it finds them,
// and masks them.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kPicMasterPort = 0x20;
inline constexpr uint64_t kPicSlavePort = 0xa0;
inline constexpr uint64_t kPicPorts = 2;  // command, data

struct Pic8259State {
  uint8_t mask = 0xff;
  uint8_t initialisation_words = 0;  // still to come at the data port
  bool operator==(const Pic8259State&) const = default;
};

// One chip of the two. Holds its mask, delivers nothing.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call.
// Source: Intel 8259A data sheet, "Initialization Command Words".
class Pic8259 final : public IoHandler {
 public:
  Result<uint64_t> read(uint64_t offset, unsigned /*bytes*/, DeviceContext& /*context*/) override {
    return offset == 1 ? state_.mask : uint64_t{0};
  }
  Result<Effects> write(uint64_t offset, unsigned /*bytes*/, uint64_t value,
                        DeviceContext& /*context*/) override {
    if (offset == 0) {
      if ((value & kIcw1) != 0) state_.initialisation_words = (value & kIcw4Needed) != 0 ? 3 : 2;
    } else if (state_.initialisation_words > 0) {
      --state_.initialisation_words;
    } else {
      state_.mask = static_cast<uint8_t>(value);
    }
    return Effects{};
  }
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

 private:
  static constexpr uint64_t kIcw1 = 0x10;
  static constexpr uint64_t kIcw4Needed = 0x01;

  Pic8259State state_;
};

}  // namespace reprise::vmm
