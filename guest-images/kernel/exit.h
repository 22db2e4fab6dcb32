// Ends the machine.
#pragma once

#include <stdint.h>

#include "kernel/port_io.h"

namespace reprise::guest::kernel {

// QEMU's isa-debug-exit turns status s into the process exit status 2s + 1. Where nothing listens, halts.
[[noreturn]] inline void exit_machine(uint32_t status) {
  constexpr uint16_t kDebugExit = 0xf4;
  out32(kDebugExit, status);
  for (;;) asm volatile("cli; hlt");
}

}  // namespace reprise::guest::kernel
