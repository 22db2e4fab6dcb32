// The private range: everything that the processor itself reads or writes behind the program's back
// (page tables, descriptor tables, kernel stacks), and the software clock.
//
// Why private: under Reprise each vCPU sees its own copy of these pages, so none of them can ever
// change owner. Page walks, interrupt entry and safepoints then cost no ownership event. Under plain
// QEMU there is one copy only; that works because per-CPU things are indexed by CPU. Hence the rule:
// nothing in here may carry a value from one CPU to another.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernel/layout.h"
#include "kernel/thread_frame.h"

namespace reprise::guest {

inline constexpr size_t kPageSize = 4096;

// The software clock of one vCPU.
struct alignas(kPageSize) ClockPage {
  uint64_t count;       // safepoints passed; written by the guest alone
  uint64_t limit;       // a safepoint with count >= limit stores to the trap page; written by the VMM alone
  uint64_t vcpu_count;  // set by the VMM before the start; 0: nobody told us
};

// Bits of an entry. Source: Intel SDM vol. 3, 4.5.4, tables 4-15 to 4-20.
inline constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kUncached = 0x18, kAccessed = 0x20,
                          kDirty = 0x40;
inline constexpr uint64_t kLarge = 0x80;

// Accessed and dirty are set from the start: the walker then never writes to a table, which is what lets a
// VMM keep tables read-only, and leaves no trace of host timing in them. Source: Intel SDM vol. 3, 4.8
// "Accessed and Dirty Flags".
inline constexpr uint64_t kTable = kPresent | kWritable | kUser | kAccessed;
inline constexpr uint64_t kMemory = kPresent | kWritable | kAccessed | kDirty;

// One level of address translation. Source: Intel SDM vol. 3, 4.5 "4-level paging".
struct alignas(kPageSize) PageTable {
  uint64_t entry[512];
};

// Source: Intel SDM vol. 3, 3.4.5 "Segment Descriptors", 8.2.3 "TSS Descriptor in 64-bit mode".
struct alignas(kPageSize) SegmentTable {
  uint64_t entry[FIRST_TSS / 8 + 2 * MAX_CPUS];
};

// Source: Intel SDM vol. 3, 6.14.1 "64-Bit Mode IDT".
struct InterruptGate {
  uint64_t low;
  uint64_t high;
};
struct alignas(kPageSize) InterruptTable {
  InterruptGate gate[256];
};

// Source: Intel SDM vol. 3, 8.7 "Task Management in 64-bit Mode". Only rsp0 is used.
struct [[gnu::packed]] TaskState {
  uint32_t reserved0;
  uint64_t rsp0;
  uint64_t unused[11];
  uint16_t reserved1;
  uint16_t io_map;  // beyond the limit: no port is open to CPL 3
};
static_assert(sizeof(TaskState) == 104);

struct Shootdown;

// Where a thread continues after an exception; rip is 0 where that is a crash.
struct Recovery {
  uint64_t rip, rsp;
};

// What one CPU's kernel needs. It lies at the base of the kernel stack, and the stack is aligned to
// its size, so that a kernel function finds it by masking its stack pointer: no swapgs, no MSR.
struct alignas(CPU_SLOT_SIZE) CpuSlot {
  uint32_t cpu;                         // index, equal to the local APIC's id
  uint32_t current_thread;              // index into `thread`
  uint32_t runnable;                    // bit i: thread i exists and has not finished
  Shootdown* shootdown;                 // null until this CPU joins one
  ThreadFrame thread[THREADS_PER_CPU];  // registers of the threads that do not run
  Recovery recovery[THREADS_PER_CPU];
  TaskState task;
  alignas(16) uint8_t stack[CPU_SLOT_SIZE - 24 - THREADS_PER_CPU * (sizeof(ThreadFrame) + sizeof(Recovery)) -
                            sizeof(TaskState)];
};
static_assert(sizeof(CpuSlot) == CPU_SLOT_SIZE);

struct PrivateImage {
  ClockPage clock;
  PageTable pml4;
  PageTable pdpt;
  PageTable pd[4];
  PageTable pt;
  PageTable window_pd;
  PageTable window_pt;
  SegmentTable gdt;
  InterruptTable idt;
  CpuSlot slot[MAX_CPUS];
};

// Linked at PRIVATE_START; each field at the address that kernel/layout.h gives it.
extern "C" PrivateImage private_image;

static_assert(PRIVATE_START + offsetof(PrivateImage, clock) == CLOCK_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, pml4) == PML4_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, pdpt) == PDPT_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, pd) == PD_PAGES);
static_assert(PRIVATE_START + offsetof(PrivateImage, pt) == PT_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, window_pd) == WINDOW_PD_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, window_pt) == WINDOW_PT_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, gdt) == GDT_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, idt) == IDT_PAGE);
static_assert(PRIVATE_START + offsetof(PrivateImage, slot) == CPU_SLOTS);
static_assert(PRIVATE_START + sizeof(PrivateImage) == PRIVATE_END);

}  // namespace reprise::guest
