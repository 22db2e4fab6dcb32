// The PC's battery-backed clock.
#pragma once

#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kCmosPort = 0x70;
inline constexpr uint64_t kCmosPorts = 2;  // index, data

struct CmosRtcState {
  uint8_t index = 0;
  bool operator==(const CmosRtcState&) const = default;
};

// The time of day: when the recording began, and virtual time on top. In UTC, BCD, 24 hours. It cannot be
// set, and interrupts never. Reads of a time register ask for kTime.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call.
// Source: Motorola MC146818A data sheet.
class CmosRtc final : public IoHandler {
 public:
  // `start_unix_seconds`: the time of day at virtual time 0.
  explicit CmosRtc(int64_t start_unix_seconds) : start_(start_unix_seconds) {}
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

 private:
  int64_t start_;
  CmosRtcState state_;
};

}  // namespace reprise::vmm
