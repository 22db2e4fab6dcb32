// The threads of one CPU. They never move to another CPU, so their table needs no lock: it lies in
// the CPU's slot in the private range, and the kernel runs with interrupts off.
#pragma once

#include "kernel/private_image.h"

namespace reprise::guest::kernel {

// This CPU's slot. Requires: running on the kernel stack.
inline CpuSlot& this_slot() {
  uint64_t stack_pointer;
  asm("movq %%rsp, %0" : "=r"(stack_pointer));
  return *reinterpret_cast<CpuSlot*>(stack_pointer & ~uint64_t{CPU_SLOT_SIZE - 1});
}

// Makes `frame` the registers of a thread that is about to enter `entry` on its own stack.
void prepare_thread(ThreadFrame& frame, uint32_t cpu, uint32_t thread, uint64_t entry);

// Each takes the registers of the running thread and leaves in their place those of the one to run.
void yield_thread(ThreadFrame& frame);
void finish_thread(ThreadFrame& frame);

// False if the number is out of range or taken.
bool spawn_thread(uint32_t thread, uint64_t entry);

// From now on an exception of the running thread is no crash: it continues at `rip` with `rsp`
// (runtime/guarded_call.S).
void catch_faults(uint64_t rip, uint64_t rsp);

// False if the running thread does not catch faults. Requires: the frame is an exception's.
bool continue_after_fault(ThreadFrame& frame);

// Timer interrupt at CPL 3: sends the thread to preempt_trampoline (runtime/preempt.S), which saves
// the SSE registers, that the kernel never touches, and yields.
void preempt_thread(ThreadFrame& frame);

}  // namespace reprise::guest::kernel
