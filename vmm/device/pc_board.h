// The devices of a PC that a Linux guest looks for, wired together: whose interrupt goes where.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "vmm/device/acpi_pm.h"
#include "vmm/device/board.h"
#include "vmm/device/cmos_rtc.h"
#include "vmm/device/exit_port.h"
#include "vmm/device/io_map.h"
#include "vmm/device/irq/io_apic.h"
#include "vmm/device/irq/pic8259.h"
#include "vmm/device/pit8254.h"
#include "vmm/device/reset_port.h"
#include "vmm/device/uart16550.h"
#include "vmm/device/virtio/virtio_blk.h"
#include "vmm/device/virtio/virtio_console.h"
#include "vmm/device/virtio/virtio_mmio.h"
#include "vmm/device/virtio/virtio_rng.h"

namespace reprise::vmm {

// Which virtio devices a board has.
struct VirtioOptions {
  bool random = false;
  bool console = false;           // the keys go to it, and not to the serial port
  std::vector<Disk*> disks = {};  // at most kDiskSlots.size()
};
// Their places, in order of number.
std::vector<VirtioSlot> slots_of(const VirtioOptions& options);

struct PcBoardOptions {
  uint32_t vcpus = 1;
  int64_t start_unix_seconds = 0;  // the time of day when the machine starts
  ConsoleSink console;             // takes what the serial port and the virtio console send
  VirtioOptions virtio;
};

// Threads: shared by all vCPUs without a lock: only the vCPU that has the turn may call, through its I/O map
// too.
class PcBoard final : public Board {
 public:
  // Disks outlive the board.
  explicit PcBoard(const PcBoardOptions& options);
  PcBoard(const PcBoard&) = delete;
  PcBoard& operator=(const PcBoard&) = delete;

  void claim(VcpuId vcpu, IoMap& io) override;
  [[nodiscard]] uint32_t shared_devices() const override { return 0; }
  Result<Effects> accept(const log::Input& input, DeviceContext& context) override;
  Effects route(Effects effects) override;
  // But for what is on the disk. The order stays what it is: it is part of the digests in recordings.
  void visit(StateVisitor& visitor) override;
  // Of all that, and of what was written to the disk.
  [[nodiscard]] std::optional<uint64_t> compared_digest() override;

 private:
  // One virtio device and its registers.
  template <typename Device>
  struct Virtio {
    template <typename... Args>
    explicit Virtio(VirtioSlot place, Args&&... args)
        : slot(place), device(std::forward<Args>(args)...), registers(device, virtio_line(place)) {}
    VirtioSlot slot;
    Device device;
    VirtioMmio registers;
  };
  // Calls `visit` with the Virtio of each device that is there, in order of slots.
  template <typename Visit>
  void for_each_virtio(const Visit& visit) {
    if (!disks_.empty()) visit(*disks_.front());
    if (console_.has_value()) visit(*console_);
    if (random_.has_value()) visit(*random_);
    for (size_t i = 1; i < disks_.size(); ++i) visit(*disks_[i]);
  }

  const std::vector<Disk*> disk_contents_;
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
  std::vector<std::unique_ptr<Virtio<VirtioBlk>>> disks_;
  std::optional<Virtio<VirtioConsole>> console_;
  std::optional<Virtio<VirtioRng>> random_;
};

}  // namespace reprise::vmm
