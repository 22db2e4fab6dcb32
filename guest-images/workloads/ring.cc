// Producers and consumers in pairs, each with a ring of 64 slots. Who finds the ring full (or empty)
// halts its CPU; the other side wakes it with an interrupt.
//
// Parameters: n (items of each pair, 50000), seed (1).
// With one CPU a single worker fills and empties the ring in turn; with an odd number the last CPU idles.
#include <atomic>

#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/random.h"
#include "runtime/system_calls.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint32_t kSlots = 64;

// A number that only grows, and whether the other side sleeps until it does.
struct Position {
  std::atomic<uint32_t> count;
  std::atomic<uint32_t> somebody_sleeps;
};

struct Ring {
  OwnPage<uint64_t[kSlots]> slot;
  OwnPage<Position> produced;
  OwnPage<Position> consumed;
  OwnPage<uint64_t> producer_sleeps;
  OwnPage<uint64_t> consumer_sleeps;
  OwnPage<Checksum> sent;
  OwnPage<Checksum> received;
};
Ring rings[MAX_CPUS / 2];

// Sleeps until position.count is no longer `seen`. The flag is raised before the kernel looks at the
// count for the last time, and advance() looks at the flag after it changed the count: one of them sees the
// other.
void wait_for_change(Position& position, uint32_t seen) {
  position.somebody_sleeps.store(1);
  while (position.count.load() == seen) sleep_while(&position.count, seen);
  position.somebody_sleeps.store(0);
}

void advance(Position& position, uint32_t to, uint32_t sleeper) {
  position.count.store(to);
  if (position.somebody_sleeps.load() != 0) wake(sleeper);
}

void produce(Ring& ring, uint32_t consumer, uint64_t n, Random random) {
  for (uint32_t i = 0; i < n; ++i) {
    if (const uint32_t consumed = ring.consumed->count.load(); i - consumed == kSlots) {
      ++*ring.producer_sleeps;
      wait_for_change(*ring.consumed, consumed);
    }
    const uint64_t item = random.next();
    ring.slot.value[i % kSlots] = item;
    ring.sent->add(item);
    advance(*ring.produced, i + 1, consumer);
  }
}

void consume(Ring& ring, uint32_t producer, uint64_t n) {
  for (uint32_t i = 0; i < n; ++i) {
    if (ring.produced->count.load() == i) {
      ++*ring.consumer_sleeps;
      wait_for_change(*ring.produced, i);
    }
    ring.received->add(ring.slot.value[i % kSlots]);
    advance(*ring.consumed, i + 1, producer);
  }
}

// One CPU: nobody to wait for.
void fill_and_empty(Ring& ring, uint64_t n, Random random) {
  for (uint64_t done = 0; done < n; done += kSlots) {
    const uint64_t items = n - done < kSlots ? n - done : kSlots;
    for (uint64_t i = 0; i < items; ++i) {
      ring.slot.value[i] = random.next();
      ring.sent->add(ring.slot.value[i]);
    }
    for (uint64_t i = 0; i < items; ++i) ring.received->add(ring.slot.value[i]);
  }
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 50'000), seed = arguments.number("seed", 1);
  const uint32_t pairs = cpus() == 1 ? 1 : cpus() / 2;
  print("ring cpus=", cpus(), " n=", n, " pairs=", pairs, "\n");

  parallel(cpus() == 1 ? 1 : 2 * pairs, [=](uint32_t worker) {
    Ring& ring = rings[worker / 2];
    const Random random(seed, worker / 2);
    if (cpus() == 1) return fill_and_empty(ring, n, random);
    if (worker % 2 == 0) return produce(ring, worker + 1, n, random);
    consume(ring, worker - 1, n);
  });

  bool right = true;
  Checksum checksum;
  for (uint32_t pair = 0; pair < pairs; ++pair) {
    Ring& ring = rings[pair];
    const bool equal = ring.sent->value() == ring.received->value();
    print("pair ", pair, ": producer_sleeps=", *ring.producer_sleeps,
          " consumer_sleeps=", *ring.consumer_sleeps,
          equal ? "\n" : " FAILED: received is not what was sent\n");
    right &= equal;
    checksum.add(ring.received->value());
  }
  print("checksum=", hex(checksum.value()), "\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
