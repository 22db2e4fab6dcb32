#include "vmm/device/virtio/virtio_blk.h"

#include <array>
#include <string_view>

namespace reprise::vmm {
namespace {

// Source: 5.2.3 (feature bits), 5.2.6 (requests).
constexpr uint32_t kFeatureSegmentBytes = 1 << 1;
constexpr uint32_t kFeatureSegments = 1 << 2;
constexpr uint32_t kFeatureFlush = 1 << 9;
constexpr uint32_t kRead = 0;
constexpr uint32_t kWrite = 1;
constexpr uint32_t kFlush = 4;
constexpr uint32_t kName = 8;
constexpr size_t kNameBytes = 20;
constexpr std::string_view kDiskName = "reprise";

struct Header {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(Header) == 16);

}  // namespace

uint32_t VirtioBlk::features() const {
  return kFeatureSegmentBytes | kFeatureSegments | kFeatureFlush;
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

bool VirtioBlk::is_possible(uint64_t sector, uint64_t bytes) const {
  return bytes % kSectorBytes == 0 && bytes <= kMaxDiskRequestBytes && sector <= config_.capacity &&
         bytes / kSectorBytes <= config_.capacity - sector;
}

Result<VirtioBlk::Answer> VirtioBlk::carry_out(uint32_t type, uint64_t sector, const Chain& data) {
  switch (type) {
    case kRead: {
      if (!is_possible(sector, total_bytes(data.writable))) return Answer::kError;
      uint64_t at = sector * kSectorBytes;
      for (const auto& buffer : data.writable) {
        TRY(disk_.read(at, buffer));
        at += buffer.size();
      }
      return Answer::kOk;
    }
    case kWrite: {
      if (!is_possible(sector, total_bytes(data.readable))) return Answer::kError;
      uint64_t at = sector * kSectorBytes;
      for (const auto& buffer : data.readable) {
        TRY(disk_.write(at, buffer));
        at += buffer.size();
      }
      return Answer::kOk;
    }
    // What the guest writes lives as long as the run; there is nothing to bring to safety.
    case kFlush:
      return total_bytes(data.writable) == 0 ? Answer::kOk : Answer::kError;
    case kName: {
      std::array<uint8_t, kNameBytes> name{};
      std::copy(kDiskName.begin(), kDiskName.end(), name.begin());
      return total_bytes(data.writable) == scatter(name, data.writable) ? Answer::kOk : Answer::kError;
    }
    default:
      return Answer::kUnsupported;
  }
}

}  // namespace reprise::vmm
