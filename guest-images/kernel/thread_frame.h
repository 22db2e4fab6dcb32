// The registers of an interrupted thread, as kernel/vectors.S pushes them.
#pragma once

#include <stdint.h>

namespace reprise::guest {

// From `vector` on: pushed by the stub and by the processor.
// Source: Intel SDM vol. 3, 6.14.2 "64-Bit Mode Stack Frame".
struct ThreadFrame {
  uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
  uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
  uint64_t vector, error;
  uint64_t rip, cs, rflags, rsp, ss;

  bool from_user() const { return (cs & 3) == 3; }
};
static_assert(sizeof(ThreadFrame) == 22 * 8);

}  // namespace reprise::guest
