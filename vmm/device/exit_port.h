// The guest's way to end the run.
#pragma once

#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kExitPort = 0xf4;
inline constexpr uint64_t kExitPorts = 4;

// A write of 1, 2 or 4 bytes to the first port stops the machine with that status. Unlike QEMU's
// isa-debug-exit at the same port, the status is the value itself, so a guest can say 0. Reads give all ones.
//
// Threads: immutable.
class ExitPort final : public IoHandler {
 public:
  Result<uint64_t> read(uint64_t /*offset*/, unsigned /*bytes*/, DeviceContext& /*context*/) override {
    return ~0ull;
  }
  Result<Effects> write(uint64_t offset, unsigned /*bytes*/, uint64_t value,
                        DeviceContext& /*context*/) override {
    if (offset != 0) return Effects{};
    return Effects{StopMachine{static_cast<uint32_t>(value)}};
  }
};

}  // namespace reprise::vmm
