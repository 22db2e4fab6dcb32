// The two ways in which a PC is asked to reset itself: the chipset's register, and the keyboard controller.
#pragma once

#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kResetPort = 0xcf9;  // Intel ICH9 data sheet, 13.7.5 (RST_CNT)
inline constexpr uint8_t kResetValue = 0x06;   // full reset, now
inline constexpr uint64_t kKeyboardPort = 0x64;
inline constexpr uint8_t kKeyboardReset = 0xfe;  // "pulse the reset line"
// The machine is not started again: the run ends with this status, so that a panic with panic=-1 is no
// success.
inline constexpr uint32_t kResetStatus = 1;

// Threads: immutable.
class ResetPort final : public IoHandler {
 public:
  explicit ResetPort(uint8_t mask, uint8_t value) : mask_(mask), value_(value) {}
  Result<uint64_t> read(uint64_t /*offset*/, unsigned /*bytes*/, DeviceContext& /*context*/) override {
    return ~0ull;
  }
  Result<Effects> write(uint64_t /*offset*/, unsigned /*bytes*/, uint64_t value,
                        DeviceContext& /*context*/) override {
    return (value & mask_) == value_ ? Effects{StopMachine{kResetStatus}} : Effects{};
  }

 private:
  uint8_t mask_;
  uint8_t value_;
};

}  // namespace reprise::vmm
