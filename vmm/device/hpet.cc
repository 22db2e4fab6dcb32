#include "vmm/device/hpet.h"

namespace reprise::vmm {
namespace {

// Register offsets. Source: HPET specification 1.0a, table 2.
constexpr uint64_t kCapabilities = 0x000;
constexpr uint64_t kConfiguration = 0x010;
constexpr uint64_t kMainCounter = 0x0f0;
constexpr uint64_t kTimer0Comparator = 0x108;

// Period in femtoseconds, vendor 0x8086, 64-bit counter, number of the last timer = 0, revision 1.
// No legacy replacement route (bit 15). Source: 2.3.4.
constexpr uint64_t kPeriodFemtoseconds = kHpetNanosPerCount * 1'000'000;
constexpr uint64_t kCapabilitiesValue = kPeriodFemtoseconds << 32 | 0x8086ull << 16 | 1ull << 13 | 1;
static_assert(kPeriodFemtoseconds <= 0x05f5e100, "the longest period that the specification allows");

constexpr uint64_t kEnabled = 1;  // ENABLE_CNF, 2.3.5

}  // namespace

Result<uint64_t> Hpet::read(uint64_t offset, unsigned /*bytes*/, DeviceContext& context) {
  uint64_t value = 0;
  switch (offset & ~7ull) {
    case kCapabilities:
      value = kCapabilitiesValue;
      break;
    case kConfiguration:
      value = kEnabled;
      break;
    case kMainCounter: {
      TRY_ASSIGN(const uint64_t nanoseconds, context.value(log::Source::kTime));
      value = nanoseconds / kHpetNanosPerCount;
      break;
    }
    case kTimer0Comparator:
      value = ~0ull;  // its reset value, 2.3.9.2
      break;
    default:
      break;
  }
  return value >> (8 * (offset & 7));
}

}  // namespace reprise::vmm
