#include "vmm/device/acpi_pm.h"

#include <type_traits>

namespace reprise::vmm {
namespace {

static_assert(std::has_unique_object_representations_v<AcpiPmState>, "digested as bytes");

constexpr uint64_t kStatus = 0;
constexpr uint64_t kEnable = 2;
constexpr uint64_t kControl = kAcpiPmControlPort - kAcpiPmEventPort;
constexpr uint64_t kTimer = kAcpiPmTimerPort - kAcpiPmEventPort;
constexpr uint16_t kSleepEnable = 1 << 13;
constexpr unsigned kSleepTypeShift = 10;
constexpr uint64_t kTimerMask = 0xffffff;

}  // namespace

Result<uint64_t> AcpiPm::read(uint64_t offset, unsigned bytes, DeviceContext& context) {
  if (offset == kTimer && bytes == 4) {
    TRY_ASSIGN(const uint64_t ns, context.value(log::Source::kTime));
    return static_cast<uint64_t>(static_cast<unsigned __int128>(ns) * kAcpiPmHertz / 1'000'000'000) &
           kTimerMask;
  }
  // Words; a byte is half of one.
  uint64_t word = 0;
  switch (offset & ~1ull) {
    case kStatus:
      break;
    case kEnable:
      word = state_.enabled;
      break;
    case kControl:
      word = state_.control;
      break;
    default:
      return uint64_t{0};
  }
  return word >> (8 * (offset & 1));
}

Result<Effects> AcpiPm::write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& /*context*/) {
  if (bytes < 2) return Effects{};
  if (offset == kEnable) state_.enabled = static_cast<uint16_t>(value);
  if (offset != kControl) return Effects{};
  state_.control = static_cast<uint16_t>((value & ~uint64_t{kSleepEnable}) | 1);
  if ((value & kSleepEnable) != 0 && (value >> kSleepTypeShift & 7) == kPowerOffType)
    return Effects{StopMachine{0}};
  return Effects{};
}

}  // namespace reprise::vmm
