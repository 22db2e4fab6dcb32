// Memory that each worker touches for the first time, page after page, and that nobody else uses: what it
// costs that a page gets an owner.
//
// Parameters: n (MiB of all workers together, 32), passes (over all of it, 1).
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/partition.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kWordsInPage = kPage / sizeof(uint64_t);

OwnPage<uint64_t> sums[MAX_CPUS];

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 32), passes = arguments.number("passes", 1);
  if (n == 0 || passes == 0) panic("n= and passes= must be at least 1");
  print("first_touch cpus=", cpus(), " n=", n, " passes=", passes, "\n");
  const uint64_t pages = n * kMiB / kPage;
  auto* const words = allocate_array<uint64_t>(pages * kWordsInPage);

  parallel(cpus(), [=](uint32_t worker) {
    const auto [first, end] = share_of(worker, cpus(), pages);
    uint64_t sum = 0;
    for (uint64_t pass = 1; pass <= passes; ++pass)
      for (uint64_t page = first; page < end; ++page) sum += words[page * kWordsInPage] += pass * page;
    *sums[worker] = sum;
  });

  // After pass k, the word of a page holds (1 + ... + k) * page; all of these are summed.
  uint64_t expected = 0, sum = 0;
  for (uint64_t pass = 1; pass <= passes; ++pass)
    expected += pass * (pass + 1) / 2 * (pages * (pages - 1) / 2);
  for (uint32_t worker = 0; worker < cpus(); ++worker) sum += *sums[worker];
  print("sum=", hex(sum),
        sum == expected ? "\n" : "\nFAILED: the memory did not begin as zeros, or was changed\n");
  return sum == expected ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
