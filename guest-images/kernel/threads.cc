#include "kernel/threads.h"

#include "kernel/boot_information.h"

extern "C" void preempt_trampoline();

namespace reprise::guest::kernel {

void prepare_thread(ThreadFrame& frame, uint32_t cpu, uint32_t thread, uint64_t entry) {
  constexpr uint64_t kInterruptsOn = 0x202;
  frame = {};
  frame.rip = entry;
  frame.cs = USER_CODE | 3;
  frame.rflags = kInterruptsOn;
  frame.rsp = thread_stack(cpu, thread) + THREAD_STACK_SIZE - 8;  // as if called: rsp + 8 is aligned to 16
  frame.ss = USER_DATA | 3;
}

// Round robin. Thread 0 never finishes, so there is always one to run.
static void switch_thread(CpuSlot& slot, ThreadFrame& frame) {
  uint32_t next = slot.current_thread;
  do {
    next = (next + 1) % THREADS_PER_CPU;
  } while (!(slot.runnable >> next & 1));
  if (next == slot.current_thread) return;
  slot.thread[slot.current_thread] = frame;
  frame = slot.thread[next];
  slot.current_thread = next;
}

void yield_thread(ThreadFrame& frame) {
  switch_thread(this_slot(), frame);
}

void finish_thread(ThreadFrame& frame) {
  CpuSlot& slot = this_slot();
  if (slot.current_thread != 0) slot.runnable &= ~(1u << slot.current_thread);
  switch_thread(slot, frame);
}

bool spawn_thread(uint32_t thread, uint64_t entry) {
  CpuSlot& slot = this_slot();
  if (thread >= THREADS_PER_CPU || slot.runnable >> thread & 1) return false;
  prepare_thread(slot.thread[thread], slot.cpu, thread, entry);
  slot.runnable |= 1u << thread;
  return true;
}

void catch_faults(uint64_t rip, uint64_t rsp) {
  CpuSlot& slot = this_slot();
  slot.recovery[slot.current_thread] = {rip, rsp};
}

bool continue_after_fault(ThreadFrame& frame) {
  CpuSlot& slot = this_slot();
  Recovery& recovery = slot.recovery[slot.current_thread];
  if (!frame.from_user() || recovery.rip == 0) return false;
  frame.rip = recovery.rip;
  frame.rsp = recovery.rsp;
  frame.rax = frame.vector + 1;
  recovery = {};
  return true;
}

void preempt_thread(ThreadFrame& frame) {
  const uint32_t runnable = this_slot().runnable;
  if ((runnable & (runnable - 1)) == 0) return;  // nobody to give the CPU to
  frame.rsp -= 8;                                // user code has no red zone
  *reinterpret_cast<uint64_t*>(frame.rsp) = frame.rip;
  frame.rip = reinterpret_cast<uint64_t>(&preempt_trampoline);
}

}  // namespace reprise::guest::kernel
