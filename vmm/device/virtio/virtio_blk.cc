#include "vmm/device/virtio/virtio_blk.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace reprise::vmm {
namespace {

// Source: 5.2.3 (feature bits), 5.2.6 (requests).
constexpr uint32_t kFeatureSegmentBytes = 1 << 1;
constexpr uint32_t kFeatureSegments = 1 << 2;
constexpr uint32_t kFeatureReadOnly = 1 << 5;
constexpr uint32_t kFeatureFlush = 1 << 9;
constexpr uint32_t kFeatureDiscard = 1 << 13;
constexpr uint32_t kFeatureZeros = 1 << 14;
constexpr uint32_t kRead = 0;
constexpr uint32_t kWrite = 1;
constexpr uint32_t kFlush = 4;
constexpr uint32_t kName = 8;
constexpr uint32_t kDiscard = 11;
constexpr uint32_t kWriteZeros = 13;
constexpr std::string_view kDiskName = "reprise";

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(Header) == 16);

// What is to be discarded, or to become zeros.
struct Range {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(Range) == 16);
constexpr uint32_t kMayUnmap = 1;

// Sectors. Discarding is cheap: 1 GiB. Zeros are written: 4 MiB, as much as a write can have.
constexpr uint32_t kMaxDiscardSectors = (1u << 30) / kSectorBytes;
constexpr uint32_t kMaxZeroSectors = (4u << 20) / kSectorBytes;

// The one range that a request has. Nothing: it has more, or something else.
std::optional<Range> range_of(const Chain& data) {
  if (total_bytes(data.readable) != sizeof(Range) || total_bytes(data.writable) != 0) return std::nullopt;
  Range range{};
  gather(data.readable, {reinterpret_cast<uint8_t*>(&range), sizeof range});
  return range;
}

}  // namespace

VirtioBlk::VirtioBlk(Disk& disk) : disk_(disk) {
  config_.capacity = disk.bytes() / kSectorBytes;
  if (!disk.traits().can_discard) return;
  config_.max_discard_sectors = kMaxDiscardSectors;
  config_.max_discard_segments = 1;
  config_.discard_alignment = 1;
  config_.max_zero_sectors = kMaxZeroSectors;
  config_.max_zero_segments = 1;
}

uint32_t VirtioBlk::features() const {
  const DiskTraits& traits = disk_.traits();
  return kFeatureSegmentBytes | kFeatureSegments | kFeatureFlush | (traits.read_only ? kFeatureReadOnly : 0) |
         (traits.can_discard ? kFeatureDiscard | kFeatureZeros : 0);
}

Status VirtioBlk::serve(uint32_t /*index*/, Virtqueue& queue, DeviceContext& /*context*/) {
  while (const auto chain = queue.next()) TRY(serve(*chain, queue));
  return {};
}

Status VirtioBlk::serve(const Chain& chain, Virtqueue& queue) {
  const uint64_t readable = total_bytes(chain.readable);
  const uint64_t writable = total_bytes(chain.writable);
  // Nobody to answer to, or nothing to answer.
  if (readable < sizeof(Header) || writable < 1) {
    queue.give_up();
    return {};
  }
  Header header{};
  gather(chain.readable, {reinterpret_cast<uint8_t*>(&header), sizeof header});
  const Chain data{chain.head, part(chain.readable, sizeof header, readable - sizeof header),
                   part(chain.writable, 0, writable - 1)};
  TRY_ASSIGN(const Answer answer, carry_out(header.type, header.sector, data));
  const auto status = static_cast<uint8_t>(answer);
  scatter({&status, 1}, part(chain.writable, writable - 1, 1));
  // How much was written without a gap. No request is so long that it would not fit: it would have failed.
  const bool whole = answer == Answer::kOk || writable == 1;
  queue.finish(chain, whole ? static_cast<uint32_t>(writable) : 0);
  return {};
}

bool VirtioBlk::is_inside(uint64_t sector, uint64_t sectors) const {
  return sector <= config_.capacity && sectors <= config_.capacity - sector;
}

bool VirtioBlk::is_possible(uint64_t sector, uint64_t bytes) const {
  return bytes % kSectorBytes == 0 && bytes <= kMaxDiskRequestBytes &&
         is_inside(sector, bytes / kSectorBytes);
}

Result<VirtioBlk::Answer> VirtioBlk::carry_out(uint32_t type, uint64_t sector, const Chain& data) {
  const DiskTraits& traits = disk_.traits();
  // Source: 5.2.6.2: what changes a disk that cannot be changed fails.
  const bool changes = type == kWrite || type == kDiscard || type == kWriteZeros;
  if (traits.read_only && changes) return Answer::kError;
  switch (type) {
    case kRead:
      return read(sector, data);
    case kWrite:
      return write(sector, data);
    // What the guest writes lives as long as the run; there is nothing to bring to safety.
    case kFlush:
      return total_bytes(data.writable) == 0 ? Answer::kOk : Answer::kError;
    case kName:
      return answer_name(data);
    case kDiscard:
      return traits.can_discard ? discard(data) : Answer::kUnsupported;
    case kWriteZeros:
      return traits.can_discard ? write_zeros(data) : Answer::kUnsupported;
    default:
      return Answer::kUnsupported;
  }
}

Result<VirtioBlk::Answer> VirtioBlk::read(uint64_t sector, const Chain& data) {
  if (!is_possible(sector, total_bytes(data.writable))) return Answer::kError;
  uint64_t at = sector * kSectorBytes;
  for (const auto& buffer : data.writable) {
    TRY(disk_.read(at, buffer));
    at += buffer.size();
  }
  return Answer::kOk;
}

Result<VirtioBlk::Answer> VirtioBlk::write(uint64_t sector, const Chain& data) {
  if (!is_possible(sector, total_bytes(data.readable))) return Answer::kError;
  uint64_t at = sector * kSectorBytes;
  for (const auto& buffer : data.readable) {
    TRY(disk_.write(at, buffer));
    at += buffer.size();
  }
  return Answer::kOk;
}

// Source: 5.2.6.2: reserved flags, and those that are not for discarding, are refused.
Result<VirtioBlk::Answer> VirtioBlk::discard(const Chain& data) {
  const auto range = range_of(data);
  if (!range.has_value()) return Answer::kError;
  if (range->flags != 0) return Answer::kUnsupported;
  if (range->sectors > kMaxDiscardSectors || !is_inside(range->sector, range->sectors)) return Answer::kError;
  TRY(disk_.discard(range->sector * kSectorBytes, uint64_t{range->sectors} * kSectorBytes));
  return Answer::kOk;
}

Result<VirtioBlk::Answer> VirtioBlk::write_zeros(const Chain& data) {
  static constexpr std::array<uint8_t, 64 << 10> kZeros{};
  const auto range = range_of(data);
  if (!range.has_value()) return Answer::kError;
  if ((range->flags & ~kMayUnmap) != 0) return Answer::kUnsupported;
  const uint64_t bytes = uint64_t{range->sectors} * kSectorBytes;
  if (range->sectors > kMaxZeroSectors || !is_inside(range->sector, range->sectors)) return Answer::kError;
  for (uint64_t done = 0; done < bytes; done += kZeros.size())
    TRY(disk_.write(range->sector * kSectorBytes + done,
                    std::span(kZeros).first(std::min<uint64_t>(kZeros.size(), bytes - done))));
  return Answer::kOk;
}

VirtioBlk::Answer VirtioBlk::answer_name(const Chain& data) const {
  const std::string& serial = disk_.traits().serial;
  const std::string_view text = serial.empty() ? kDiskName : std::string_view(serial);
  std::array<uint8_t, kMaxSerialBytes> name{};
  std::copy_n(text.begin(), std::min(text.size(), name.size()), name.begin());
  return total_bytes(data.writable) == scatter(name, data.writable) ? Answer::kOk : Answer::kError;
}

}  // namespace reprise::vmm
