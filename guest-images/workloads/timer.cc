// Several threads on each CPU, switched by the local APIC's timer wherever they happen to be. Asynchronous
// interrupts are the hardest thing to replay: each has to come at the same instruction again.
//
// Every thread computes the same numbers, in general and in SSE registers, so a register lost in a
// switch shows. The order in which the threads of a CPU get on is hashed: it depends on every switch.
//
// Parameters: n (steps of each thread, 10000000), threads (per CPU, 3; at most 8), period (microseconds,
// 1000).
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/random.h"
#include "runtime/thread.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint64_t kStepsPerNote = 256;

struct Result {
  uint64_t integer;
  double real;
};
struct Cpu {
  Checksum order;  // written by its threads in turn
  Result result[THREADS_PER_CPU];
};
OwnPage<Cpu> results[MAX_CPUS];

Result compute(uint64_t n, Checksum& order, uint32_t thread) {
  Random random(1);
  Result result{0, 1};
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t number = random.next();
    result.integer ^= number;
    result.real = result.real * 0.75 + static_cast<double>(number >> 44);
    if (i % kStepsPerNote == 0) order.add(uint64_t{thread});
  }
  return result;
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 10'000'000), period = arguments.number("period", 1000);
  const uint32_t threads = static_cast<uint32_t>(arguments.number("threads", 3));
  if (threads < 1 || threads > THREADS_PER_CPU) panic("threads= is not between 1 and 8");
  if (period < 1 || period > 4'000'000) panic("period= is not between 1 and 4000000");
  print("timer cpus=", cpus(), " n=", n, " threads=", threads, " period=", period, "\n");

  parallel(
      cpus() * threads,
      [n](uint32_t) {
        const ThreadBlock& self = this_thread();
        Cpu& cpu = *results[self.cpu];
        cpu.result[self.thread] = compute(n, cpu.order, self.thread);
      },
      static_cast<uint32_t>(period * 1000));

  bool right = true;
  Checksum checksum;
  const Result expected = results[0]->result[0];
  for (uint32_t cpu = 0; cpu < cpus(); ++cpu) {
    for (uint32_t thread = 0; thread < threads; ++thread) {
      const Result& result = results[cpu]->result[thread];
      const bool equal = result.integer == expected.integer && result.real == expected.real;
      print("cpu ", cpu, " thread ", thread, ": switches=", thread_block(cpu, thread).preemptions,
            equal ? "\n" : " FAILED: another result than thread 0 of CPU 0\n");
      right &= equal;
    }
    print("cpu ", cpu, ": order=", hex(results[cpu]->order.value()), "\n");
    checksum.add(results[cpu]->order.value());
  }
  print("checksum=", hex(checksum.value()), "\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
