// The guest's wall of time: an HPET whose main counter is the machine's virtual time.
#pragma once

#include <cstdint>

#include "vmm/device/device.h"

namespace reprise::vmm {

inline constexpr uint64_t kHpetBase = 0xfed00000;
inline constexpr uint64_t kHpetBytes = 1024;        // IA-PC HPET specification 1.0a, 2.3.1
inline constexpr uint64_t kHpetNanosPerCount = 10;  // a counter of 100 MHz; the period register says so

// A counter and nothing else. Without state, so vCPUs use it at the same time and in any order: the counter
// always runs, the enable bit always reads 1, and all writes (the counter, the enable bit, the comparators)
// are lost. The one timer that the specification demands has no interrupt that it could be routed to.
//
// Threads: immutable; each vCPU calls it with its own ValueSource.
// Source: Intel, IA-PC HPET (High Precision Event Timers) Specification, revision 1.0a, section 2.3.
class Hpet final : public IoHandler {
 public:
  // Each read that touches the main counter asks for kTime (ns of virtual time), the two 32-bit halves
  // separately. Registers are 64 bits wide; what a read covers beyond its register is zero.
  Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) override;
  Result<Effects> write(uint64_t /*offset*/, unsigned /*bytes*/, uint64_t /*value*/,
                        DeviceContext& /*context*/) override {
    return Effects{};
  }
};

}  // namespace reprise::vmm
