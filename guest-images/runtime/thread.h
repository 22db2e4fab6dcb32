// Who am I? Each thread's stack is aligned to its size and starts with the thread's block, so masking
// the stack pointer answers without a segment register or an MSR.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <atomic>

#include "kernel/boot_information.h"
#include "kernel/layout.h"
#include "runtime/thread_block_offsets.h"

namespace reprise::guest {

struct ThreadBlock {
  uint32_t cpu;
  uint32_t thread;                 // on that CPU; 0 is the one that always exists
  uint64_t preemptions;            // how often the timer took the CPU away; counted by preempt_trampoline
  std::atomic<uint32_t> siblings;  // in thread 0: how many others of this CPU have work left
};
static_assert(offsetof(ThreadBlock, preemptions) == THREAD_BLOCK_PREEMPTIONS);

inline ThreadBlock& thread_block(uint32_t cpu, uint32_t thread) {
  return *reinterpret_cast<ThreadBlock*>(thread_stack(cpu, thread));
}

inline ThreadBlock& this_thread() {
  uint64_t stack_pointer;
  asm("movq %%rsp, %0" : "=r"(stack_pointer));
  return *reinterpret_cast<ThreadBlock*>(stack_pointer & ~uint64_t{THREAD_STACK_SIZE - 1});
}

}  // namespace reprise::guest
