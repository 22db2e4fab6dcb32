// The registers in which a guest's first instruction runs, as a boot protocol wants them.
#pragma once

#include <cstdint>

#include "base/units.h"

namespace reprise::vmm {

// A segment register, as the processor holds it.
struct SegmentRegister {
  uint16_t selector = 0;
  uint64_t base = 0;
  uint32_t limit = 0;        // bytes - 1
  uint8_t type = 0;          // SDM vol. 3, 3.4.5.1 and 3.5
  bool code_or_data = true;  // the S flag; false: a system segment
  bool is_32_bit = false;    // the D/B flag
  bool granular = false;     // the G flag
  bool is_64_bit = false;    // the L flag
};

// All registers that are not here are zero.
struct BootState {
  Gpa entry;
  uint64_t rbx = 0;
  uint64_t rsi = 0;
  uint64_t rflags = 0;
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  SegmentRegister code;
  SegmentRegister data;  // ds, es, fs, gs, ss
  SegmentRegister task;
  Gpa gdt;
  uint16_t gdt_limit = 0;
};

}  // namespace reprise::vmm
