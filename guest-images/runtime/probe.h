// Memory accesses that may fault: the answer is the fault instead of a crash.
#pragma once

#include <stdint.h>

namespace reprise::guest {

// `fault` is 0, or kFaulted and the error code. `value` is what was loaded, or the address of the fault
// (CR2).
struct Probe {
  uint64_t fault;
  uint64_t value;
};

// Kept in step with kernel/probe.h.
inline constexpr uint64_t kFaulted = uint64_t{1} << 32;

// Bits of a page fault's error code. Source: Intel SDM vol. 3, 4.7 "Page-Fault Exceptions".
inline constexpr uint64_t kFaultPresent = 1, kFaultWrite = 2, kFaultUser = 4;

extern "C" Probe probe_load(uint64_t address);
extern "C" Probe probe_store(uint64_t address, uint64_t value);

}  // namespace reprise::guest
