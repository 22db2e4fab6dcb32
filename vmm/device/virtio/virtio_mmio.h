// How a guest reaches a virtio device: registers in memory and an interrupt line.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/device/device.h"
#include "vmm/device/virtio/virtio_device.h"
#include "vmm/device/virtio/virtqueue.h"

namespace reprise::vmm {

// Places for virtio devices, one device each: what a device's registers and its interrupt line are, and what
// ACPI calls it. Numbers stand in the tables that a guest sees: they stay what they are.
enum class VirtioSlot : uint8_t {
  kDisk = 0,
  kConsole = 1,
  kRandom = 2,
  kNetwork = 3,
  kSecondDisk = 4,
  kThirdDisk = 5,
  kFourthDisk = 6,
};
// In the order in which guests number disks.
inline constexpr std::array kDiskSlots = {VirtioSlot::kDisk, VirtioSlot::kSecondDisk, VirtioSlot::kThirdDisk,
                                          VirtioSlot::kFourthDisk};

// In the hole of a PC's memory below the I/O APIC.
inline constexpr uint64_t kVirtioBase = 0xd0000000;
inline constexpr uint64_t kVirtioBytes =
    kPageSize;  // of each slot: so that a driver's mapping has no other device in it
inline constexpr uint8_t kVirtioFirstLine = 16;  // pins of the I/O APIC that no ISA line has

constexpr uint64_t virtio_base(VirtioSlot slot) {
  return kVirtioBase + static_cast<uint64_t>(slot) * kVirtioBytes;
}
constexpr uint8_t virtio_line(VirtioSlot slot) {
  return static_cast<uint8_t>(kVirtioFirstLine + static_cast<uint8_t>(slot));
}

inline constexpr uint32_t kMaxVirtioQueues = 2;

struct VirtioMmioState {
  uint64_t driver_features = 0;
  uint32_t device_features_select = 0;
  uint32_t driver_features_select = 0;
  uint32_t queue_select = 0;
  uint32_t status = 0;
  uint32_t interrupt_status = 0;
  uint32_t reserved = 0;
  std::array<VirtqueueState, kMaxVirtioQueues> queues = {};
  bool operator==(const VirtioMmioState&) const = default;
};

// The virtio-mmio transport, version 2. All that a driver asks for by a notification is done when its write
// returns. Interrupts are edges: one for each time that InterruptStatus gets a bit, set before or not, so
// none is lost between a handler's look and its acknowledgement. A driver that breaks the rules of a queue
// gets DEVICE_NEEDS_RESET, and the device does nothing more until it is reset.
//
// Threads: shared by all vCPUs without a lock: only who has the turn may call.
// Source: VIRTIO 1.2, section 4.2.
class VirtioMmio final : public IoHandler {
 public:
  // `device` outlives this. Requires: device.queues() is at most kMaxVirtioQueues.
  VirtioMmio(VirtioDevice& device, uint8_t line) : device_(device), line_(line) {}

  // Registers answer 32-bit accesses; others read as 0 and change nothing. The configuration answers every
  // width.
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  // Effects: RaiseLine. Errors: those of VirtioDevice::serve().
  Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) override;
  // Gets the vCPU what serving this queue takes. False: not now, see DeviceContext::acquire(). Errors: those
  // of `context`.
  Result<bool> acquire(uint32_t queue, DeviceContext& context) const;
  // The device has something for the driver in this queue. Effects and errors as write().
  Result<Effects> serve(uint32_t queue, DeviceContext& context);
  void visit(StateVisitor& visitor) override { visitor("state", state_); }
  [[nodiscard]] const VirtioDevice& device() const { return device_; }

 private:
  [[nodiscard]] uint64_t offered() const;
  [[nodiscard]] uint32_t read_register(uint64_t offset) const;
  [[nodiscard]] uint64_t read_config(uint64_t offset, unsigned bytes) const;
  void write_queue_register(uint64_t offset, uint32_t value);
  Effects write_ready(uint32_t value, const DmaMemory& memory);
  void write_features(uint32_t value);
  void write_status(uint32_t value);
  // Source: 2.1.2: no buffers are consumed before DRIVER_OK.
  [[nodiscard]] bool can_serve(uint32_t index) const;
  [[nodiscard]] bool uses_indirect() const;
  [[nodiscard]] bool has_queue(uint32_t index) const {
    return index < device_.queues() && index < kMaxVirtioQueues;
  }
  Effects interrupt(uint32_t why);
  Effects need_reset();

  VirtioDevice& device_;
  const uint8_t line_;
  VirtioMmioState state_;
};

}  // namespace reprise::vmm
