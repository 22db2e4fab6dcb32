#include "vmm/device/pit8254.h"

#include <type_traits>

namespace reprise::vmm {
namespace {

static_assert(std::has_unique_object_representations_v<Pit8254State>, "digested as bytes");

constexpr uint64_t kCommand = 3;
constexpr uint64_t kRefreshNs = 15'085;  // how long the refresh bit of port 0x61 stays as it is

uint64_t counts_in(uint64_t ns) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(ns) * kPitHertz / 1'000'000'000);
}
uint64_t ns_of(uint64_t counts) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(counts) * 1'000'000'000 + kPitHertz - 1) /
                               kPitHertz);
}
bool is_periodic(const PitChannel& channel) {
  return channel.mode == 2 || channel.mode == 3;
}

uint16_t current_count(const PitChannel& channel, uint64_t now_ns) {
  if (channel.count == 0) return 0;
  const uint64_t passed = counts_in(now_ns - channel.start_ns);
  if (!is_periodic(channel)) return static_cast<uint16_t>(channel.count - passed);
  // Mode 3 counts by two, twice a period.
  const uint64_t step = channel.mode == 3 ? 2 * passed : passed;
  return static_cast<uint16_t>(channel.count - step % channel.count);
}

bool output(const PitChannel& channel, uint64_t now_ns) {
  if (channel.count == 0) return channel.mode != 0;
  const uint64_t passed = counts_in(now_ns - channel.start_ns);
  switch (channel.mode) {
    case 0:
    case 1:
    case 4:
    case 5:
      return passed >= channel.count;
    case 3:
      return passed % channel.count < channel.count / 2;
    default:
      return true;
  }
}

}  // namespace

Result<uint64_t> Pit8254::read(uint64_t offset, unsigned /*bytes*/, DeviceContext& context) {
  if (offset >= kCommand) return uint64_t{0};
  PitChannel& channel = state_.channels[offset];
  uint16_t count = channel.latched;
  if (channel.has_latched == 0) {
    TRY_ASSIGN(const uint64_t now, context.value(log::Source::kTime));
    count = current_count(channel, now);
  }
  const bool high = channel.access == 2 || (channel.access == 3 && channel.read_high != 0);
  if (channel.access == 3) channel.read_high ^= 1;
  if (channel.read_high == 0) channel.has_latched = 0;
  return static_cast<uint64_t>(high ? count >> 8 : count & 0xff);
}

Result<Effects> Pit8254::write(uint64_t offset, unsigned /*bytes*/, uint64_t value, DeviceContext& context) {
  const auto byte = static_cast<uint8_t>(value);
  if (offset == kCommand) return command(byte, context);
  if (offset > kCommand) return Effects{};
  PitChannel& channel = state_.channels[offset];
  if (channel.access == 3 && channel.write_high == 0) {
    channel.low = byte;
    channel.write_high = 1;
    return Effects{};
  }
  uint32_t count = channel.access == 1 ? byte : byte << 8;
  if (channel.access == 3) count |= channel.low;
  channel.write_high = 0;
  return load(static_cast<uint32_t>(offset), count == 0 ? 65536 : count, context);
}

Result<Effects> Pit8254::command(uint8_t value, DeviceContext& context) {
  const uint32_t number = value >> 6;
  if (number == 3) return Effects{};
  PitChannel& channel = state_.channels[number];
  if ((value >> 4 & 3) == 0) {
    if (channel.has_latched != 0) return Effects{};
    TRY_ASSIGN(const uint64_t now, context.value(log::Source::kTime));
    channel.latched = current_count(channel, now);
    channel.has_latched = 1;
    channel.read_high = 0;
    return Effects{};
  }
  const uint8_t mode = value >> 1 & 7;
  channel = {.access = static_cast<uint8_t>(value >> 4 & 3)};
  channel.mode = mode > 5 ? static_cast<uint8_t>(mode - 4) : mode;
  return number == 0 ? Effects{SetTick{}} : Effects{};
}

Result<Effects> Pit8254::load(uint32_t number, uint32_t count, DeviceContext& context) {
  PitChannel& channel = state_.channels[number];
  TRY_ASSIGN(channel.start_ns, context.value(log::Source::kTime));
  channel.count = count;
  // Modes 1 and 5 wait for their gate, which is not there.
  if (number != 0 || channel.mode == 1 || channel.mode == 5) return Effects{};
  return Effects{SetTick{ns_of(count), is_periodic(channel) ? ns_of(count) : 0}};
}

Result<uint64_t> Pit8254::Speaker::read(uint64_t /*offset*/, unsigned /*bytes*/, DeviceContext& context) {
  TRY_ASSIGN(const uint64_t now, context.value(log::Source::kTime));
  return state_.speaker | (now / kRefreshNs & 1) << 4 | (output(state_.channels[2], now) ? 1ull << 5 : 0);
}

Result<Effects> Pit8254::Speaker::write(uint64_t /*offset*/, unsigned /*bytes*/, uint64_t value,
                                        DeviceContext& context) {
  const bool rises = (value & 1) != 0 && (state_.speaker & 1) == 0;
  state_.speaker = value & 0xf;
  if (rises) {
    TRY_ASSIGN(state_.channels[2].start_ns, context.value(log::Source::kTime));
  }
  return Effects{};
}

}  // namespace reprise::vmm
