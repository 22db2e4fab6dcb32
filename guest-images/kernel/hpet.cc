#include "kernel/hpet.h"

namespace reprise::guest::kernel {
namespace {

constexpr uint64_t kCapabilities = 0x00, kConfiguration = 0x10, kMainCounter = 0xf0;
constexpr uint64_t kEnable = 1;

// Femtoseconds of one count. Written once, before any other CPU starts.
uint64_t period;

}  // namespace

void start_hpet() {
  period = hpet_register(kCapabilities) >> 32;
  hpet_register(kConfiguration) = kEnable;
}

// The product overflows after 2^64 fs, five hours.
uint64_t hpet_nanoseconds() {
  constexpr uint64_t kFemtosecondsPerNanosecond = 1'000'000;
  return hpet_register(kMainCounter) * period / kFemtosecondsPerNanosecond;
}

}  // namespace reprise::guest::kernel
