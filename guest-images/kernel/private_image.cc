// Builds the private range at compile time: the image holds the finished tables, so that every
// vCPU's copy is complete before its first instruction; afterwards only the window changes
// (kernel/shootdown.h).
#include "kernel/private_image.h"

namespace reprise::guest {
namespace {

constexpr uint64_t kLargePage = 2 << 20;

// The 2 MiB page that starts at `address`. RAM and the page with HPET and trap page are open to
// CPL 3 (safepoints store to the trap page from there), the local APIC is not.
constexpr uint64_t large_page(uint64_t address) {
  constexpr uint64_t kMmioStart = 0xc0000000;
  uint64_t entry = address | kMemory | kLarge;
  if (address < kMmioStart || address == (TRAP_PAGE & ~(kLargePage - 1))) entry |= kUser;
  if (address >= kMmioStart) entry |= kUncached;
  return entry;
}

// The 4 KiB page that starts at `address`, below 2 MiB. The private range belongs to the kernel but for
// the clock. So does page 0: a null pointer faults at CPL 3, and the kernel must read it at the start
// (QEMU puts the memory map there).
constexpr uint64_t small_page(uint64_t address) {
  const bool kernel_only = address == 0 || (address > CLOCK_PAGE && address < PRIVATE_END);
  return address | kMemory | (kernel_only ? 0 : kUser);
}

// Flat segments with the accessed bit set, so that loading a selector does not write to the table.
constexpr uint64_t kCode64 = 0x00af9b000000ffff;
constexpr uint64_t kCode32 = 0x00cf9b000000ffff;
constexpr uint64_t kData = 0x00cf93000000ffff;
constexpr uint64_t kUserLevel = uint64_t{3} << 45;

constexpr uint64_t slot_address(unsigned cpu) {
  return CPU_SLOTS + uint64_t{cpu} * CPU_SLOT_SIZE;
}

constexpr uint64_t tss_descriptor(unsigned cpu) {
  constexpr uint64_t kAvailableTss = uint64_t{0x89} << 40;
  const uint64_t base = slot_address(cpu) + offsetof(CpuSlot, task);
  return (sizeof(TaskState) - 1) | (base & 0xffffff) << 16 | kAvailableTss | (base >> 24 & 0xff) << 56;
}

constexpr InterruptGate interrupt_gate(unsigned vector) {
  constexpr uint64_t kPresentInterruptGate = uint64_t{0x8e} << 40;
  const uint64_t stub = VECTOR_STUBS + uint64_t{vector} * VECTOR_STUB_SIZE;
  return {(stub & 0xffff) | uint64_t{KERNEL_CODE} << 16 | kPresentInterruptGate | (stub >> 16 & 0xffff) << 48,
          stub >> 32};
}

constexpr PrivateImage build() {
  PrivateImage image{};
  image.clock.limit = ~uint64_t{0};  // without Reprise no safepoint ever stops

  image.pml4.entry[0] = PDPT_PAGE | kTable;
  for (unsigned gib = 0; gib < 4; ++gib) {
    image.pdpt.entry[gib] = (PD_PAGES + uint64_t{gib} * kPageSize) | kTable;
    for (unsigned i = 0; i < 512; ++i)
      image.pd[gib].entry[i] = large_page((uint64_t{gib} * 512 + i) * kLargePage);
  }
  // The window's directory stays empty until a CPU joins a shootdown: then it is known where the table lies.
  image.pdpt.entry[WINDOW_START >> 30] = WINDOW_PD_PAGE | kTable;
  image.pd[0].entry[0] = PT_PAGE | kTable;
  for (unsigned i = 0; i < 512; ++i) image.pt.entry[i] = small_page(uint64_t{i} * kPageSize);

  image.gdt.entry[KERNEL_CODE / 8] = kCode64;
  image.gdt.entry[KERNEL_DATA / 8] = kData;
  image.gdt.entry[USER_DATA / 8] = kData | kUserLevel;
  image.gdt.entry[USER_CODE / 8] = kCode64 | kUserLevel;
  image.gdt.entry[KERNEL_CODE32 / 8] = kCode32;

  for (unsigned vector = 0; vector < 256; ++vector) image.idt.gate[vector] = interrupt_gate(vector);

  for (unsigned cpu = 0; cpu < MAX_CPUS; ++cpu) {
    image.gdt.entry[FIRST_TSS / 8 + 2 * cpu] = tss_descriptor(cpu);
    image.slot[cpu].cpu = cpu;
    image.slot[cpu].runnable = 1;
    image.slot[cpu].task.rsp0 = slot_address(cpu + 1);
    image.slot[cpu].task.io_map = sizeof(TaskState);
  }
  return image;
}

}  // namespace

extern "C" {
[[gnu::section(".private"), gnu::used]] constinit PrivateImage private_image = build();
}

}  // namespace reprise::guest
