#include "kernel/shootdown.h"

#include "kernel/local_apic.h"
#include "kernel/threads.h"

namespace reprise::guest::kernel {
namespace {

uint64_t window_address(const Shootdown& shootdown) {
  return WINDOW_START + shootdown.page * kPageSize;
}

PageTable& table_of(const Shootdown& shootdown) {
  return shootdown.shared_table ? *shootdown.shared_table : private_image.window_pt;
}

void change_entry(const Shootdown& shootdown) {
  volatile uint64_t& entry = table_of(shootdown).entry[shootdown.page];
  if (shootdown.right == Right::kNone) {
    entry = 0;
  } else {
    entry = shootdown.frame | static_cast<uint64_t>(shootdown.right) | kUser | kAccessed | kDirty;
  }
}

// Source: Intel SDM vol. 3, 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches".
void invalidate(const Shootdown& shootdown) {
  asm volatile("invlpg (%0)" ::"r"(window_address(shootdown)) : "memory");
}

}  // namespace

// The directory's entry was not present, and that is never cached: nothing to invalidate.
// Source: Intel SDM vol. 3, 4.10.2.1 and 4.10.3.
void join_shootdown(Shootdown* shootdown) {
  this_slot().shootdown = shootdown;
  volatile uint64_t& entry = private_image.window_pd.entry[0];
  entry = reinterpret_cast<uint64_t>(&table_of(*shootdown)) | kTable;
}

void change_translation() {
  const Shootdown& shootdown = *this_slot().shootdown;
  change_entry(shootdown);
  invalidate(shootdown);
}

void shoot_down(uint32_t cpus) {
  const uint32_t self = this_slot().cpu;
  for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
    if (cpu != self) send_shootdown(cpu);
  }
}

void serve_shootdown() {
  const CpuSlot& slot = this_slot();
  Shootdown& shootdown = *slot.shootdown;
  if (!shootdown.shared_table) change_entry(shootdown);
  invalidate(shootdown);
  // Last: when the others see it, this CPU cannot use the old translation any more.
  volatile uint64_t& acknowledged = shootdown.acknowledged[slot.cpu].generation;
  acknowledged = shootdown.generation;
}

}  // namespace reprise::guest::kernel
