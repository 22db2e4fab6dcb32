#include "runtime/parallel.h"

#include <atomic>

#include "kernel/layout.h"
#include "kernel/memory.h"
#include "runtime/own_page.h"
#include "runtime/print.h"
#include "runtime/system_calls.h"
#include "runtime/thread.h"

namespace reprise::guest {
namespace {

// What the workers run. Written by CPU 0 between two generations, read by all.
struct Job {
  uint32_t workers;
  uint32_t switch_every;
  internal::WorkerFunction function;
  alignas(16) uint8_t body[internal::kBodySize];
};

OwnPage<Job> job;
OwnPage<std::atomic<uint32_t>> generation;    // number of the current job; the others sleep on it
OwnPage<std::atomic<uint32_t>> busy_cpus;     // CPUs that have not finished it; CPU 0 sleeps on it
OwnPage<std::atomic<uint32_t>> started_cpus;  // CPUs that reached serve_cpu()
uint32_t number_of_cpus = 1;

// How many workers CPU `cpu` has.
uint32_t workers_on(uint32_t cpu) {
  return (job->workers + cpus() - 1 - cpu) / cpus();
}

// First function of a spawned thread.
[[noreturn]] void extra_thread() {
  ThreadBlock& self = this_thread();
  job->function(job->body, self.cpu + self.thread * cpus());
  thread_block(self.cpu, 0).siblings.fetch_sub(1);
  system_call(SystemCall::kFinishThread);
  __builtin_unreachable();
}

void spawn(uint32_t cpu, uint32_t thread) {
  ThreadBlock& block = thread_block(cpu, thread);
  block.cpu = cpu;
  block.thread = thread;
  block.preemptions = 0;
  if (!system_call(SystemCall::kSpawn, thread, reinterpret_cast<uint64_t>(&extra_thread)))
    panic("a thread cannot be spawned");
}

// This CPU's part of the job.
void run_share() {
  ThreadBlock& self = this_thread();
  const uint32_t threads = workers_on(self.cpu);
  if (threads == 0) return;
  self.siblings = threads - 1;
  self.preemptions = 0;
  for (uint32_t thread = 1; thread < threads; ++thread) spawn(self.cpu, thread);
  if (threads > 1) set_timer(job->switch_every);
  job->function(job->body, self.cpu);
  while (self.siblings.load() != 0) yield();
  if (threads > 1) set_timer(0);
}

}  // namespace

uint32_t cpus() {
  return number_of_cpus;
}

// INIT to each, then SIPI to each, repeated for those that did not hear it: a SIPI is lost if it
// arrives before the INIT has been digested. Source: Intel SDM vol. 3, 9.4.4 "MP Initialization Example".
void start_cpus(uint32_t count) {
  constexpr uint64_t kInitDelay = 200'000, kStartDelay = 2'000'000;  // ns
  constexpr int kAttempts = 1000;
  number_of_cpus = count;
  if (count == 1) return;
  for (uint32_t cpu = 1; cpu < count; ++cpu) system_call(SystemCall::kInitCpu, cpu);
  for (const uint64_t start = time_ns(); time_ns() - start < kInitDelay;) cpu_relax();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    for (uint32_t cpu = 1; cpu < count; ++cpu) system_call(SystemCall::kStartCpu, cpu);
    for (const uint64_t start = time_ns(); time_ns() - start < kStartDelay;) {
      for (int i = 0; i < 1000 && started_cpus->load() != count - 1; ++i) cpu_relax();
      if (started_cpus->load() == count - 1) return;
    }
  }
  panic("a CPU did not start");
}

void serve_cpu() {
  started_cpus->fetch_add(1);
  for (uint32_t seen = 0;; ++seen) {
    while (generation->load() == seen) sleep_while(&generation.value, seen);
    run_share();
    if (busy_cpus->fetch_sub(1) == 1) wake(0);
  }
}

void internal::run_parallel(uint32_t workers, uint32_t switch_every, WorkerFunction function,
                            const void* body, size_t size) {
  if (workers == 0 || workers > THREADS_PER_CPU * cpus()) panic("more workers than the CPUs have threads");
  job->workers = workers;
  job->switch_every = switch_every;
  job->function = function;
  memcpy(job->body, body, size);
  busy_cpus->store(cpus() - 1);
  generation->fetch_add(1);
  for (uint32_t cpu = 1; cpu < cpus(); ++cpu) wake(cpu);
  run_share();
  while (const uint32_t busy = busy_cpus->load()) sleep_while(&busy_cpus.value, busy);
}

}  // namespace reprise::guest
