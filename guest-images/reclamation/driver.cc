#include "reclamation/driver.h"

namespace reprise::guest::reclamation {
namespace {

OwnPage<std::atomic<uint32_t>> arrived;
OwnPage<std::atomic<uint32_t>> over;

const char* name_of(Layout layout) {
  return layout == Layout::kPacked ? "packed" : layout == Layout::kPadded ? "padded" : "paged";
}

const char* name_of(Structure structure) {
  return structure == Structure::kList    ? "list"
         : structure == Structure::kHash  ? "hash"
         : structure == Structure::kQueue ? "queue"
                                          : "stack";
}

}  // namespace

void print_header(const Settings& settings, const char* scheme, Structure structure) {
  print("reclamation cpus=", cpus(), " scheme=", scheme, " structure=", name_of(structure),
        " workers=", settings.workers, " update=", settings.update, " length=", settings.length,
        " nodes=", settings.nodes, " layout=", name_of(settings.layout), " break=", settings.broken, "\n");
}

void print_worker(const WorkerBase& worker, const Tally& tally) {
  print("worker ", worker.index, ": operations=", worker.operations, " added=", tally.added,
        " removed=", tally.removed, " found=", tally.found, " retired=", worker.retired,
        " peak=", worker.peak, " starved=", worker.starved,
        " switches=", thread_block(worker.index % cpus(), worker.index / cpus()).preemptions, "\n");
}

void print_time(const Settings& settings, uint64_t operations, Duration duration) {
  if (duration.nanoseconds == 0 || operations == 0) return;
  const uint64_t working = settings.workers < cpus() ? settings.workers : cpus();
  print("nanoseconds=", duration.nanoseconds, " per_operation=", duration.nanoseconds / operations,
        " cpu_time_per_operation=", duration.nanoseconds * working / operations, "\n");
}

void start_meeting() {
  arrived->store(0);
  over->store(0);
}

void meet(uint32_t waiting) {
  arrived->fetch_add(1);
  while (arrived->load() < waiting) let_others_run();
}

void be_master(uint64_t milliseconds) {
  constexpr uint32_t kLookEvery = 1'000'000;  // ns
  const uint64_t end = time_ns() + milliseconds * 1'000'000;
  const ThreadBlock& self = this_thread();
  const bool alone =
      self.thread == 0;  // else workers share its CPU, and it has a turn when the timer gives it one
  if (alone) set_timer(kLookEvery);
  while (time_ns() < end) {
    if (alone) {
      sleep_while(&over.value, 0);
    } else {
      yield();
    }
  }
  if (alone) set_timer(0);
  over->store(1);
}

bool time_is_over() {
  return over->load(std::memory_order_relaxed) != 0;
}

}  // namespace reprise::guest::reclamation
