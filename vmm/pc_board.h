// The devices of a PC that a Linux guest looks for, wired together: whose interrupt goes where.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/device/acpi_pm.h"
#include "vmm/device/cmos_rtc.h"
#include "vmm/device/exit_port.h"
#include "vmm/device/io_map.h"
#include "vmm/device/pit8254.h"
#include "vmm/device/reset_port.h"
#include "vmm/device/uart16550.h"
#include "vmm/irq/io_apic.h"
#include "vmm/irq/pic8259.h"

namespace reprise::vmm {

// Threads: shared by all vCPUs without a lock: only who has the turn may call, through its I/O map too.
class PcBoard {
 public:
  // `start_unix_seconds`: the time of day when the machine starts.
  PcBoard(uint32_t vcpus, int64_t start_unix_seconds, ConsoleSink console);

  // Puts all devices into one vCPU's map.
  void claim(IoMap& io);
  // Whether a message is for the board and not for the receiver's local APIC.
  [[nodiscard]] static bool is_for_board(const log::ApicMessage& message);
  // A message for a device has arrived. Effects: of the device, to be routed like those of an access.
  Effects accept(const log::ApicMessage& message);
  // What the effects of a device come to: lines that were raised become messages for local APICs.
  Effects route(const Effects& effects);
  // All devices that remember something.
  [[nodiscard]] std::vector<IoHandler*> devices();
  // Digest of what they remember.
  [[nodiscard]] uint64_t digest();

 private:
  Uart16550 uart_;
  Pit8254 pit_;
  CmosRtc rtc_;
  AcpiPm power_;
  Pic8259 master_;
  Pic8259 slave_;
  IoApic io_apic_;
  ExitPort exit_port_;
  ResetPort reset_{kResetValue, kResetValue};
  ResetPort keyboard_{0xff, kKeyboardReset};
};

}  // namespace reprise::vmm
