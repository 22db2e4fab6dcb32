// The driver's side of virtio-mmio, for tests: sets a device up, puts requests into its rings, and breaks the
// rules when asked to.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/units.h"
#include "vmm/device/device.h"
#include "vmm/device/device_context_fake.h"
#include "vmm/device/virtio/virtio_registers.h"
#include "vmm/device/virtio/virtqueue.h"

namespace reprise::vmm {

// Threads: confined to the test.
class FakeVirtioDriver {
 public:
  static constexpr uint16_t kQueueSize = 8;
  static constexpr uint64_t kQueueBytes = 0x1000;  // of all areas of one queue

  struct Buffer {
    uint64_t address;
    uint32_t length;
    bool device_writes = false;
  };
  struct Used {
    uint32_t head;
    uint32_t written;
    bool operator==(const Used&) const = default;
  };

  // `queues`: where in guest memory the queues are to lie, one behind the other.
  FakeVirtioDriver(IoHandler& registers, std::span<uint8_t> ram, FakeDeviceContext& values, uint64_t queues)
      : registers_(registers), ram_(ram), values_(values), queues_(queues) {}

  uint32_t read(VirtioRegister reg) {
    return static_cast<uint32_t>(registers_.read(static_cast<uint64_t>(reg), 4, values_).value());
  }
  Effects write(VirtioRegister reg, uint32_t value) {
    return registers_.write(static_cast<uint64_t>(reg), 4, value, values_).value();
  }

  // From reset to DRIVER_OK, as section 3.1.1 says.
  void start(uint32_t queues, uint64_t features = kFeatureVersion1) {
    negotiate(features);
    for (uint32_t queue = 0; queue < queues; ++queue) set_up(queue);
    write(VirtioRegister::kStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  }
  void negotiate(uint64_t features) {
    write(VirtioRegister::kStatus, 0);
    write(VirtioRegister::kStatus, kStatusAcknowledge | kStatusDriver);
    for (uint32_t half = 0; half < 2; ++half) {
      write(VirtioRegister::kDriverFeaturesSelect, half);
      write(VirtioRegister::kDriverFeatures, static_cast<uint32_t>(features >> (32 * half)));
    }
    write(VirtioRegister::kStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  }
  void set_up(uint32_t queue, uint32_t size = kQueueSize) {
    put(driver_area(queue) + 2, uint16_t{0});
    put(device_area(queue) + 2, uint16_t{0});
    write(VirtioRegister::kQueueSelect, queue);
    write(VirtioRegister::kQueueSize, size);
    write(VirtioRegister::kDescriptorsLow, static_cast<uint32_t>(descriptors(queue)));
    write(VirtioRegister::kDriverAreaLow, static_cast<uint32_t>(driver_area(queue)));
    write(VirtioRegister::kDeviceAreaLow, static_cast<uint32_t>(device_area(queue)));
    write(VirtioRegister::kQueueReady, 1);
  }

  [[nodiscard]] uint64_t descriptors(uint32_t queue) const { return queues_ + queue * kQueueBytes; }
  [[nodiscard]] uint64_t driver_area(uint32_t queue) const { return descriptors(queue) + 0x800; }
  [[nodiscard]] uint64_t device_area(uint32_t queue) const { return descriptors(queue) + 0xa00; }

  template <typename T>
  void put(uint64_t address, const T& value) {
    std::memcpy(ram_.subspan(address, sizeof value).data(), &value, sizeof value);
  }
  template <typename T>
  [[nodiscard]] T get(uint64_t address) const {
    T value;
    std::memcpy(&value, ram_.subspan(address, sizeof value).data(), sizeof value);
    return value;
  }

  void put_descriptor(uint64_t table, uint16_t index, const Buffer& buffer, uint16_t flags, uint16_t next) {
    put(table + 16ull * index, buffer.address);
    put(table + 16ull * index + 8, buffer.length);
    put(table + 16ull * index + 12, static_cast<uint16_t>(flags | (buffer.device_writes ? 2 : 0)));
    put(table + 16ull * index + 14, next);
  }
  // A chain of descriptors from number `first` on in a table.
  void put_chain(uint64_t table, uint16_t first, const std::vector<Buffer>& buffers) {
    for (size_t i = 0; i < buffers.size(); ++i)
      put_descriptor(table, static_cast<uint16_t>(first + i), buffers[i], i + 1 < buffers.size() ? 1 : 0,
                     static_cast<uint16_t>(first + i + 1));
  }
  // Makes the chain that begins at `head` available.
  void offer(uint32_t queue, uint16_t head) {
    const auto index = get<uint16_t>(driver_area(queue) + 2);
    put(driver_area(queue) + 4 + 2ull * (index % kQueueSize), head);
    put(driver_area(queue) + 2, static_cast<uint16_t>(index + 1));
  }
  Effects notify(uint32_t queue) { return write(VirtioRegister::kQueueNotify, queue); }
  // One request, from descriptor 0 on, and what it comes to.
  Effects request(uint32_t queue, const std::vector<Buffer>& buffers) {
    put_chain(descriptors(queue), 0, buffers);
    offer(queue, 0);
    return notify(queue);
  }
  // What the device has given back since the queue was set up.
  [[nodiscard]] std::vector<Used> used(uint32_t queue) const {
    std::vector<Used> result;
    for (uint16_t i = 0; i < get<uint16_t>(device_area(queue) + 2); ++i)
      result.push_back(get<Used>(device_area(queue) + 4 + 8ull * (i % kQueueSize)));
    return result;
  }
  [[nodiscard]] bool needs_reset() { return (read(VirtioRegister::kStatus) & kStatusNeedsReset) != 0; }

 private:
  IoHandler& registers_;
  std::span<uint8_t> ram_;
  FakeDeviceContext& values_;
  uint64_t queues_;
};

}  // namespace reprise::vmm
