#include "vmm/device/cmos_rtc.h"

#include <time.h>

namespace reprise::vmm {
namespace {

// Registers. Source: MC146818A data sheet, figure 7; 0x32 is the century of PCs (the FADT names it).
enum Register : uint8_t {
  kSeconds = 0x00,
  kMinutes = 0x02,
  kHours = 0x04,
  kWeekday = 0x06,
  kDay = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kStatusA = 0x0a,
  kStatusB = 0x0b,
  kStatusC = 0x0c,
  kStatusD = 0x0d,
  kCentury = 0x32,
};
constexpr uint64_t kOscillatorOn = 0x26;  // status A, no update in progress
constexpr uint64_t k24Hours = 0x02;       // status B
constexpr uint64_t kValid = 0x80;         // status D

uint64_t bcd(int value) {
  return static_cast<uint64_t>(value / 10 % 10 << 4 | value % 10);
}

uint64_t time_register(uint8_t index, const tm& time) {
  switch (index) {
    case kSeconds:
      return bcd(time.tm_sec);
    case kMinutes:
      return bcd(time.tm_min);
    case kHours:
      return bcd(time.tm_hour);
    case kWeekday:
      return bcd(time.tm_wday + 1);
    case kDay:
      return bcd(time.tm_mday);
    case kMonth:
      return bcd(time.tm_mon + 1);
    case kYear:
      return bcd(time.tm_year % 100);
    default:
      return bcd((time.tm_year + 1900) / 100);
  }
}

}  // namespace

Result<uint64_t> CmosRtc::read(uint64_t offset, unsigned /*bytes*/, DeviceContext& context) {
  if (offset == 0) return uint64_t{0xff};  // write-only
  switch (state_.index) {
    case kSeconds:
    case kMinutes:
    case kHours:
    case kWeekday:
    case kDay:
    case kMonth:
    case kYear:
    case kCentury: {
      TRY_ASSIGN(const uint64_t ns, context.value(log::Source::kTime));
      const time_t seconds = static_cast<time_t>(start_ + static_cast<int64_t>(ns / 1'000'000'000));
      tm time{};
      if (::gmtime_r(&seconds, &time) == nullptr) return uint64_t{0};
      return time_register(state_.index, time);
    }
    case kStatusA:
      return kOscillatorOn;
    case kStatusB:
      return k24Hours;
    case kStatusD:
      return kValid;
    default:
      return uint64_t{0};
  }
}

Result<Effects> CmosRtc::write(uint64_t offset, unsigned /*bytes*/, uint64_t value,
                               DeviceContext& /*context*/) {
  if (offset == 0) state_.index = value & 0x7f;
  return Effects{};
}

}  // namespace reprise::vmm
