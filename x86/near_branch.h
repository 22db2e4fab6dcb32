// call and jmp with 32 bits of distance, as they are written into a guest's code. Source: Intel SDM vol. 2,
// CALL and JMP.
#pragma once

#include <array>
#include <cstdint>

namespace reprise::x86 {

inline constexpr uint8_t kNearCall = 0xe8, kNearJump = 0xe9;
inline constexpr size_t kNearBranchBytes = 5;

// The instruction that stands at `from` and leads to `to`: both linear, or both guest-physical where the code
// is mapped as one piece. Requires: they are less than 2 GiB apart.
inline std::array<uint8_t, kNearBranchBytes> near_branch(uint8_t opcode, uint64_t from, uint64_t to) {
  std::array<uint8_t, kNearBranchBytes> bytes = {opcode};
  const uint64_t distance = to - (from + kNearBranchBytes);
  for (size_t i = 1; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(distance >> (8 * (i - 1)));
  return bytes;
}

}  // namespace reprise::x86
