// What the loader told the kernel. In ordinary RAM: written once by the first CPU before any other
// CPU starts, read by all.
#pragma once

#include <stdint.h>

#include "kernel/layout.h"

namespace reprise::guest {

struct BootInformation {
  uint32_t cpus;            // as the VMM or fw_cfg says; 0: neither did
  uint64_t ram_end;         // end of the RAM that holds the image, below 3 GiB
  char command_line[1024];  // zero-terminated; a longer one is cut off
};

extern "C" BootInformation boot_information;

// From kernel/image.ld.in: all RAM from here to ram_end is free.
extern "C" uint8_t heap_start[];
// THREAD_STACK_SIZE bytes for each thread of each CPU.
extern "C" uint8_t thread_stacks[];

// The base of a thread's stack, where its ThreadBlock lies (runtime/thread.h).
inline uint64_t thread_stack(uint32_t cpu, uint32_t thread) {
  return reinterpret_cast<uint64_t>(thread_stacks) +
         (uint64_t{cpu} * THREADS_PER_CPU + thread) * THREAD_STACK_SIZE;
}

}  // namespace reprise::guest
