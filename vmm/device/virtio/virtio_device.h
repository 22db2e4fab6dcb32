// What a virtio device is, apart from how the guest reaches it (vmm/device/virtio/virtio_mmio.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/state.h"
#include "vmm/device/device.h"
#include "vmm/device/virtio/virtqueue.h"

namespace reprise::vmm {

// A pure state machine, like an IoHandler. All that the driver asks for is done before its notification
// returns, so what is written to guest memory and when follows from the guest's own stops.
//
// Threads: as its transport.
class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;

  // Source: VIRTIO 1.2, section 5 (device types).
  [[nodiscard]] virtual uint32_t id() const = 0;
  // Feature bits 0 to 23, those of the device type.
  [[nodiscard]] virtual uint32_t features() const = 0;
  [[nodiscard]] virtual uint32_t queues() const = 0;
  // The device-specific configuration, which the driver may only read.
  [[nodiscard]] virtual std::span<const std::byte> config() const = 0;

  // Deals with queue `index`, for which the driver has made buffers available, or the device has something.
  // Errors: those of `context`; kHost if the world fails in a way that the guest cannot be told
  // deterministically.
  virtual Status serve(uint32_t index, Virtqueue& queue, DeviceContext& context) = 0;
  virtual void reset() = 0;

  // As IoHandler's; the queues are the transport's.
  virtual void visit(StateVisitor& /*visitor*/) {}
};

}  // namespace reprise::vmm
