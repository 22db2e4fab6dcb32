// Bits of RFLAGS. Source: Intel SDM vol. 1, 3.4.3.
#pragma once

#include <cstdint>

namespace reprise::x86 {

inline constexpr uint64_t kTraceFlag = 1 << 8;
inline constexpr uint64_t kInterruptFlag = 1 << 9;
inline constexpr uint64_t kDirectionFlag = 1 << 10;
inline constexpr uint64_t kResumeFlag = 1 << 16;
inline constexpr uint64_t kVirtual8086Flag = 1 << 17;
inline constexpr uint64_t kAlignmentFlag = 1 << 18;

}  // namespace reprise::x86
