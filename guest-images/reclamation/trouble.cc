#include "reclamation/trouble.h"

#include <atomic>

#include "runtime/own_page.h"
#include "runtime/parallel.h"
#include "runtime/system_calls.h"

namespace reprise::guest::reclamation {
namespace {

OwnPage<std::atomic<uint32_t>> finished;
uint32_t all_workers;  // not written while they work

}  // namespace

void expect_workers(uint32_t workers) {
  all_workers = workers;
  finished->store(0);
}

void count_finished() {
  if (finished->fetch_add(1) + 2 != all_workers) return;
  for (uint32_t cpu = 0; cpu < cpus(); ++cpu) wake(cpu);  // whoever halts
}

void halt_until_others_finish() {
  for (;;) {
    const uint32_t through = finished->load();
    if (through + 1 >= all_workers) return;
    if (all_workers > cpus()) {
      yield();  // the CPU is not its own
    } else {
      sleep_while(&finished.value, through);
    }
  }
}

void fault_now() {
  asm volatile("movl $1, (%0)" ::"r"(uint64_t{0}));
}

void let_others_run() {
  if (all_workers > cpus()) {
    yield();
  } else {
    cpu_relax();
  }
}

}  // namespace reprise::guest::reclamation
