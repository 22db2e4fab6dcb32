// Parallel radix sort, after SPLASH-2's RADIX: each pass counts digits locally, exchanges the counts,
// and scatters the keys over everybody's part of the other array.
//
// Parameters: n (keys, 2000000), seed (1).
#include "kernel/layout.h"
#include "runtime/barrier.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/partition.h"
#include "runtime/random.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint32_t kDigits = 256, kBitsPerDigit = 8, kPasses = 4;
constexpr uint64_t kKeysPerPage = kPage / sizeof(uint32_t);

OwnPage<Barrier> barrier;
OwnPage<uint32_t[kDigits]> count[MAX_CPUS];  // of each worker's keys

// Where worker `worker`'s first key of each digit goes: behind all smaller digits, and behind the same digit
// of the workers before it.
void find_places(uint32_t worker, uint32_t workers, uint32_t* place) {
  uint32_t next = 0;
  for (uint32_t digit = 0; digit < kDigits; ++digit) {
    for (uint32_t other = 0; other < workers; ++other) {
      if (other == worker) place[digit] = next;
      next += count[other].value[digit];
    }
  }
}

void sort(uint32_t worker, uint32_t workers, uint32_t* keys, uint32_t* other, uint64_t n) {
  const Range mine = share_of(worker, workers, n, kKeysPerPage);
  uint32_t* my_count = count[worker].value;
  for (uint32_t pass = 0; pass < kPasses; ++pass) {
    const uint32_t shift = pass * kBitsPerDigit;
    for (uint32_t digit = 0; digit < kDigits; ++digit) my_count[digit] = 0;
    for (uint64_t i = mine.begin; i < mine.end; ++i) ++my_count[keys[i] >> shift & (kDigits - 1)];
    barrier->wait();
    uint32_t place[kDigits];
    find_places(worker, workers, place);
    for (uint64_t i = mine.begin; i < mine.end; ++i)
      other[place[keys[i] >> shift & (kDigits - 1)]++] = keys[i];
    barrier->wait();
    uint32_t* sorted = other;
    other = keys;
    keys = sorted;
  }
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 2'000'000), seed = arguments.number("seed", 1);
  const uint32_t workers = cpus();
  print("radix cpus=", workers, " n=", n, "\n");
  uint32_t* keys = allocate_array<uint32_t>(n);
  uint32_t* other = allocate_array<uint32_t>(n);
  Random random(seed);
  uint64_t sum_before = 0;
  for (uint64_t i = 0; i < n; ++i) sum_before += keys[i] = static_cast<uint32_t>(random.next());
  barrier->set_workers(workers);

  parallel(workers, [=](uint32_t worker) { sort(worker, workers, keys, other, n); });

  // After an even number of passes the result is where the keys were.
  static_assert(kPasses % 2 == 0);
  uint64_t sum = 0, misplaced = 0;
  Checksum checksum;
  for (uint64_t i = 0; i < n; ++i) {
    sum += keys[i];
    misplaced += i > 0 && keys[i - 1] > keys[i];
    checksum.add(uint64_t{keys[i]});
  }
  for (uint32_t worker = 0; worker < workers; ++worker) {
    const Range mine = share_of(worker, workers, n, kKeysPerPage);
    print("worker ", worker, ": keys=", mine.end - mine.begin, "\n");
  }
  const bool right = misplaced == 0 && sum == sum_before;
  print("misplaced=", misplaced, " sum=", hex(sum), "\n");
  print("checksum=", hex(checksum.value()), right ? "\n" : "\nFAILED\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
