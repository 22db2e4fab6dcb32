// A source of random bytes as a virtio device.
#pragma once

#include <algorithm>
#include <array>

#include "vmm/device/virtio/virtio_device.h"

namespace reprise::vmm {

// The bytes are values of the journal's: random while recording, the same again while replaying. A buffer
// gets as many as one of the driver's reads needs and not more, for each costs its place in the log; the
// driver comes back for more.
//
// Source: VIRTIO 1.2, section 5.4.
class VirtioRng final : public VirtioDevice {
 public:
  // Linux asks for as many (drivers/char/hw_random/virtio-rng.c: SMP_CACHE_BYTES).
  static constexpr size_t kMaxBytes = 64;

  [[nodiscard]] uint32_t id() const override { return 4; }
  [[nodiscard]] uint32_t features() const override { return 0; }
  [[nodiscard]] uint32_t queues() const override { return 1; }
  [[nodiscard]] std::span<const std::byte> config() const override { return {}; }
  Status serve(uint32_t /*index*/, Virtqueue& queue, DeviceContext& context) override {
    while (const auto chain = queue.next()) {
      std::array<uint64_t, kMaxBytes / sizeof(uint64_t)> words{};
      const uint64_t bytes = std::min<uint64_t>(total_bytes(chain->writable), kMaxBytes);
      for (size_t i = 0; i * sizeof(uint64_t) < bytes; ++i) {
        TRY_ASSIGN(words[i], context.value(log::Source::kRandom));
      }
      const std::span<const uint8_t> random(reinterpret_cast<const uint8_t*>(words.data()), bytes);
      queue.finish(*chain, static_cast<uint32_t>(scatter(random, chain->writable)));
    }
    return {};
  }
  void reset() override {}
};

}  // namespace reprise::vmm
