// The gates of an IDT in long mode. Source: Intel SDM vol. 3, figure 6-8.
#pragma once

#include <array>
#include <optional>

#include "base/units.h"
#include "x86/access.h"
#include "x86/linear_memory.h"

namespace reprise::x86 {

struct InterruptGate {
  Gva handler;
  uint16_t selector = 0;
  uint8_t stack = 0;  // in the TSS's table of interrupt stacks; 0: that of the privilege level
};

inline constexpr uint64_t kGateBytes = 16;

// Of this vector; nothing: it has none, or the vCPU is not in long mode.
inline std::optional<InterruptGate> read_gate(const LinearMemory& memory, uint64_t efer,
                                              const DescriptorTable& idt, uint8_t vector) {
  constexpr uint64_t kPresent = 1ull << 47;
  std::array<uint64_t, 2> gate{};
  static_assert(sizeof gate == kGateBytes);
  const uint64_t offset = vector * kGateBytes;
  if ((efer & kEferLongModeActive) == 0 || idt.limit < offset + sizeof gate - 1) return std::nullopt;
  if (memory.read(Gva(idt.base + offset), {reinterpret_cast<uint8_t*>(gate.data()), sizeof gate},
                  {.implicit_system = true}) < sizeof gate ||
      (gate[0] & kPresent) == 0)
    return std::nullopt;
  return InterruptGate{.handler = Gva((gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32),
                       .selector = static_cast<uint16_t>(gate[0] >> 16),
                       .stack = static_cast<uint8_t>(gate[0] >> 32 & 7)};
}

}  // namespace reprise::x86
