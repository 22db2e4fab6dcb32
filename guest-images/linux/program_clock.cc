// Linked into every Linux program that was compiled with safepoints (safepoint-c++): before any of them
// counts, gives the program the clock page of the vCPU that executes it, and the trap page. The VMM shows
// each vCPU a clock page of its own, so threads need nothing more: wherever one executes, it counts for that
// vCPU. Where there is no such page (another machine, no root, no /dev/mem) the program counts in a page of
// its own and is never stopped.
//
// Compiled without safepoints. Addresses: docs/guest-abi.md, "Programs of a Linux guest".
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "kernel/layout.h"

namespace {

constexpr off_t kPhysicalClock = 0xd0000;  // kProgramClock in vmm/guest/linux/linux.h
constexpr size_t kPage = 4096;
constexpr size_t kSignature = 24;

void* map(uintptr_t address, int descriptor, off_t offset) {
  const int kind = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* const wanted = reinterpret_cast<void*>(address);
  void* const got =
      mmap(wanted, kPage, PROT_READ | PROT_WRITE, kind | MAP_FIXED_NOREPLACE, descriptor, offset);
  if (got == wanted) return got;
  static const char kMessage[] =
      "program_clock: the address of the clock page or of the trap page is taken\n";
  (void)!write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  _exit(127);
}

// Where a stop comes is the VMM's choice and must leave no trace, and the first store through a page-table
// entry marks it dirty. So it is made here. It has to be counted: a stop is known by its count.
void touch_trap_page() {
  auto* const count = reinterpret_cast<volatile uint64_t*>(uintptr_t{CLOCK_PAGE});
  *count = *count + 1;
  *reinterpret_cast<volatile uint32_t*>(uintptr_t{TRAP_PAGE}) = 0;
}

bool map_machine(int memory) {
  if (memory < 0) return false;
  const auto* clock = static_cast<const char*>(map(CLOCK_PAGE, memory, kPhysicalClock));
  if (memcmp(clock + kSignature, "Reprise1", 8) != 0) {
    munmap(reinterpret_cast<void*>(uintptr_t{CLOCK_PAGE}), kPage);
    return false;
  }
  map(TRAP_PAGE, memory, TRAP_PAGE);
  touch_trap_page();
  return true;
}

void map_own() {
  auto* clock = static_cast<uint64_t*>(map(CLOCK_PAGE, -1, 0));
  clock[1] = ~uint64_t{0};  // the limit
}

void map_pages(int, char**, char**) {
  const int memory = open("/dev/mem", O_RDWR | O_CLOEXEC);
  const bool mapped = map_machine(memory);
  if (memory >= 0) close(memory);
  if (!mapped) return map_own();
  // fork() gives the child entries of its own, which are clean again.
  pthread_atfork(nullptr, nullptr, touch_trap_page);
}

// Before all constructors.
__attribute__((section(".preinit_array"), used)) void (*const g_map_pages)(int, char**, char**) = map_pages;

}  // namespace
