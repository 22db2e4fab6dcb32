// A console as a virtio device: one port, Linux's hvc0.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/device/uart16550.h"
#include "vmm/device/virtio/virtio_device.h"

namespace reprise::vmm {

// What came in and no buffer has taken yet.
struct VirtioConsoleState {
  uint16_t first = 0;  // index of the oldest byte
  uint16_t count = 0;
  std::array<uint8_t, 1024> received = {};
  bool operator==(const VirtioConsoleState&) const = default;
};

// Source: VIRTIO 1.2, section 5.3, without multiport, size and emergency write.
class VirtioConsole final : public VirtioDevice {
 public:
  static constexpr uint32_t kReceiveQueue = 0;
  static constexpr uint32_t kTransmitQueue = 1;
  // Bytes that one request can send; the rest is lost. Linux sends no more (drivers/char/virtio_console.c:
  // port_fops_write).
  static constexpr uint64_t kMaxSent = 32 << 10;

  explicit VirtioConsole(ConsoleSink sink) : sink_(std::move(sink)) {}

  // A byte has come in; the transport is to serve kReceiveQueue. One that comes when 1024 wait is lost.
  void receive(uint8_t byte);

  [[nodiscard]] uint32_t id() const override { return 3; }
  [[nodiscard]] uint32_t features() const override { return 0; }
  [[nodiscard]] uint32_t queues() const override { return 2; }
  [[nodiscard]] std::span<const std::byte> config() const override { return {}; }
  Status serve(uint32_t index, Virtqueue& queue, DeviceContext& context) override;
  void reset() override { state_ = {}; }
  void visit(StateVisitor& visitor) override { visitor("state", state_); }

 private:
  void send(Virtqueue& queue);
  void hand_over(Virtqueue& queue);

  ConsoleSink sink_;
  VirtioConsoleState state_;
};

}  // namespace reprise::vmm
