// Power management as ACPI defines it: the way off, and a timer.
#pragma once

#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kAcpiPmEventPort = 0x600;    // PM1a status and enable, 16 bits each
inline constexpr uint64_t kAcpiPmControlPort = 0x604;  // PM1a control, 16 bits
inline constexpr uint64_t kAcpiPmTimerPort = 0x608;    // 32 bits
inline constexpr uint64_t kAcpiPmPorts = 16;           // from the event port on
inline constexpr uint16_t kPowerOffType = 5;           // SLP_TYP that the DSDT gives for S5
inline constexpr uint64_t kAcpiPmHertz = 3'579'545;

struct AcpiPmState {
  uint16_t enabled = 0;
  uint16_t control = 1;  // SCI_EN: ACPI mode from the start
  bool operator==(const AcpiPmState&) const = default;
};

// No event ever happens (there is no button), so no interrupt either. Sleeping with type S5 stops the machine
// with status 0. The timer counts virtual time, 24 bits wide; each read of it asks for kTime.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call.
// Source: ACPI Specification 6.4, 4.8.3.
class AcpiPm final : public IoHandler {
 public:
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

 private:
  AcpiPmState state_;
};

}  // namespace reprise::vmm
