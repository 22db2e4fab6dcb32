// An adversary of who decides by what was measured a moment ago: phases in which pairs of workers fight for a
// page take turns with phases in which each has work of its own, and each fight is with another partner.
//
// Parameters: n (pairs of phases, 100), steps (of work in a phase, 100000: some 0.1 ms), one=0 (1: workers 0
// and 1
//             fight all the time, and the others never).
#include <atomic>

#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/random.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

struct Worker {
  uint64_t fights;  // increments of a page that a partner increments, too
  Checksum seen;
};
OwnPage<Worker> workers[MAX_CPUS];
OwnPage<std::atomic<uint64_t>> fought_for[MAX_CPUS];  // by the pair whose smaller number it is

// Over the phases every worker that it can be, if the number of workers is a power of two; itself: none.
uint32_t partner_of(uint32_t worker, uint64_t phase, bool one) {
  if (one) return worker < 2 ? worker ^ 1 : worker;
  uint32_t others = 1;
  while (others < cpus()) others *= 2;
  if (others == 1) return worker;
  const uint32_t partner = worker ^ static_cast<uint32_t>(1 + phase % (others - 1));
  return partner < cpus() ? partner : worker;
}

void fight(uint32_t worker, uint32_t partner, uint64_t steps) {
  std::atomic<uint64_t>& counter = *fought_for[worker < partner ? worker : partner];
  for (uint64_t step = 0; step < steps; ++step) counter.fetch_add(1, std::memory_order_relaxed);
  workers[worker]->fights += steps;
}

void work_alone(uint32_t worker, Random& random, uint64_t steps) {
  uint64_t sum = 0;
  for (uint64_t step = 0; step < steps; ++step) sum += random.next();
  workers[worker]->seen.add(sum);
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 100), steps = arguments.number("steps", 100'000);
  const bool one = arguments.number("one", 0) != 0;
  print("phases cpus=", cpus(), " n=", n, " steps=", steps, " one=", one ? 1 : 0, "\n");

  parallel(cpus(), [=](uint32_t worker) {
    Random random(1, worker);
    for (uint64_t phase = 0; phase < n; ++phase) {
      const uint32_t partner = partner_of(worker, phase, one);
      if (partner != worker) fight(worker, partner, steps);
      if (!one || partner == worker) work_alone(worker, random, steps);
    }
  });

  uint64_t expected = 0, counted = 0;
  Checksum checksum;
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    expected += workers[worker]->fights;
    counted += fought_for[worker]->load();
    checksum.add(workers[worker]->seen.value());
  }
  print("expected=", expected, " counted=", counted, " checksum=", hex(checksum.value()), "\n");
  return counted == expected ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
