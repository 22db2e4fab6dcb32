#include "vmm/device/fw_cfg.h"

#include <array>
#include <type_traits>

namespace reprise::vmm {
namespace {

static_assert(std::has_unique_object_representations_v<FwCfgState>, "digested as bytes");

constexpr uint32_t kSignature = 0x00;
constexpr uint32_t kRevision = 0x01;
constexpr uint32_t kVcpuCount = 0x05;
constexpr uint32_t kWriteChannel = 0x4000;  // selects the same item; meant for writes, which nobody does

// The first bytes of an item; the rest of every item is zero.
std::array<uint8_t, 4> item(uint32_t key, uint16_t vcpus) {
  switch (key) {
    case kSignature:
      return {'Q', 'E', 'M', 'U'};
    case kRevision:
      return {1, 0, 0, 0};
    case kVcpuCount:
      return {static_cast<uint8_t>(vcpus), static_cast<uint8_t>(vcpus >> 8), 0, 0};
    default:
      return {};
  }
}

}  // namespace

Result<uint64_t> FwCfg::read(uint64_t /*offset*/, unsigned bytes, DeviceContext& /*context*/) {
  if (bytes != 1) return ~0ull;
  const auto data = item(state_.selector & ~kWriteChannel, vcpus_);
  if (state_.offset >= data.size()) return uint64_t{0};  // also keeps the offset from wrapping round
  return uint64_t{data[state_.offset++]};
}

Result<Effects> FwCfg::write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& /*context*/) {
  if (offset == 0 && bytes == 2) state_ = {.selector = static_cast<uint32_t>(value & 0xffff), .offset = 0};
  return Effects{};
}

}  // namespace reprise::vmm
