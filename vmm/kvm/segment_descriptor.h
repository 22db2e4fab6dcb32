// Segments as the guest's tables describe them. Source: Intel SDM vol. 3, 3.4.5.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <optional>

#include "x86/linear_memory.h"

namespace reprise::vmm {

// What loading this selector gives, whether or not that is allowed; nothing: its descriptor cannot be read.
inline std::optional<kvm_segment> read_segment(const x86::LinearMemory& memory, const kvm_sregs& sregs,
                                               uint16_t selector) {
  constexpr uint16_t kLocal = 4, kIndex = 0xfff8;
  uint64_t raw = 0;
  const Gva at(((selector & kLocal) != 0 ? sregs.ldt.base : sregs.gdt.base) + (selector & kIndex));
  if (memory.read(at, {reinterpret_cast<uint8_t*>(&raw), sizeof raw}, {.implicit_system = true}) < sizeof raw)
    return std::nullopt;
  kvm_segment segment{};
  segment.selector = selector;
  segment.base = (raw >> 16 & 0xff'ffff) | (raw >> 56) << 24;
  segment.type = raw >> 40 & 0xf;
  segment.s = raw >> 44 & 1;
  segment.dpl = raw >> 45 & 3;
  segment.present = raw >> 47 & 1;
  segment.avl = raw >> 52 & 1;
  segment.l = raw >> 53 & 1;
  segment.db = raw >> 54 & 1;
  segment.g = raw >> 55 & 1;
  segment.limit = static_cast<uint32_t>((raw & 0xffff) | (raw >> 32 & 0xf0000));
  if (segment.g != 0) segment.limit = segment.limit << 12 | 0xfff;
  return segment;
}

}  // namespace reprise::vmm
