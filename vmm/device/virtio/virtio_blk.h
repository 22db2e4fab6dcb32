// A disk as a virtio device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "vmm/device/disk/disk.h"
#include "vmm/device/virtio/virtio_device.h"

namespace reprise::vmm {

// Segments of a request and bytes of each, as the driver is told. What is longer fails, so one notification
// moves at most half a GiB.
inline constexpr uint32_t kMaxDiskSegments = 62;
inline constexpr uint32_t kMaxDiskSegmentBytes = 64 << 10;
inline constexpr uint64_t kMaxDiskRequestBytes = uint64_t{kMaxDiskSegments} * kMaxDiskSegmentBytes;

// The part of struct virtio_blk_config that the offered features are about. Source: VIRTIO 1.2,
// section 5.2.4.
struct VirtioBlkConfig {
  uint64_t capacity = 0;  // sectors
  uint32_t max_segment_bytes = kMaxDiskSegmentBytes;
  uint32_t max_segments = kMaxDiskSegments;
  std::array<uint8_t, 20> not_offered = {};  // geometry, topology, cache mode, number of queues
  uint32_t max_discard_sectors = 0;
  uint32_t max_discard_segments = 0;
  uint32_t discard_alignment = 0;  // sectors
  uint32_t max_zero_sectors = 0;
  uint32_t max_zero_segments = 0;
  uint8_t zeros_may_unmap = 0;
  std::array<uint8_t, 7> unused = {};
};
static_assert(offsetof(VirtioBlkConfig, max_discard_sectors) == 36);

// Reads, writes, flush, the disk's name; discarding and zeros, where the disk has that. The guest sees an
// error only where its own request asks for one: sectors that the disk does not have, parts of a sector, too
// much at once. If the host fails, the run ends.
//
// Source: VIRTIO 1.2, section 5.2.
class VirtioBlk final : public VirtioDevice {
 public:
  // `disk` outlives this.
  explicit VirtioBlk(Disk& disk);

  [[nodiscard]] uint32_t id() const override { return 2; }
  [[nodiscard]] uint32_t features() const override;
  [[nodiscard]] uint32_t queues() const override { return 1; }
  [[nodiscard]] std::span<const std::byte> config() const override {
    return std::as_bytes(std::span(&config_, 1));
  }
  // Errors: those of the disk.
  Status serve(uint32_t index, Virtqueue& queue, DeviceContext& context) override;
  void reset() override {}

 private:
  enum class Answer : uint8_t { kOk = 0, kError = 1, kUnsupported = 2 };
  Status serve(const Chain& chain, Virtqueue& queue);
  Result<Answer> carry_out(uint32_t type, uint64_t sector, const Chain& data);
  Result<Answer> read(uint64_t sector, const Chain& data);
  Result<Answer> write(uint64_t sector, const Chain& data);
  Result<Answer> discard(const Chain& data);
  Result<Answer> write_zeros(const Chain& data);
  [[nodiscard]] Answer answer_name(const Chain& data) const;
  [[nodiscard]] bool is_inside(uint64_t sector, uint64_t sectors) const;
  [[nodiscard]] bool is_possible(uint64_t sector, uint64_t bytes) const;

  Disk& disk_;
  VirtioBlkConfig config_;
};

}  // namespace reprise::vmm
