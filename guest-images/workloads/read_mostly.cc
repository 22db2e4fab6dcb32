// A table that all read and hardly anybody writes, guarded by a sequence lock. Readers share the page
// until a write takes it from all of them at once.
//
// Parameters: n (operations of each worker, 500000), write_every (1000: one operation in so many
//             writes), seed (1).
#include <atomic>

#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/racy.h"
#include "runtime/random.h"
#include "runtime/spin_lock.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint32_t kWords = 256;

// `version` is odd while a writer is at work; readers that see it odd, or changed, try again.
struct Table {
  std::atomic<uint64_t> version;
  uint64_t word[kWords];
};
OwnPage<Table> table;
OwnPage<SpinLock> writers;

struct Result {
  uint64_t writes;
  uint64_t retries;
  uint64_t torn;  // reads that mixed two versions although the version did not change: must be 0
  Checksum seen;
};
OwnPage<Result> results[MAX_CPUS];

uint64_t word_of(uint64_t version, uint32_t index) {
  return (version + 1) * 0x9e3779b97f4a7c15 + index;
}

void write_table() {
  Locked hold(*writers);
  const uint64_t version = table->version.load();
  table->version.store(version + 1);
  for (uint32_t i = 0; i < kWords; ++i) racy_store(table->word[i], word_of(version + 2, i));
  table->version.store(version + 2);
}

// Reads four words of one version; false if that did not succeed.
bool read_table(uint32_t start, Result& result) {
  const uint64_t version = table->version.load();
  if (version % 2 != 0) return false;
  bool torn = false;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t index = (start + i * 61) % kWords;
    torn |= racy_load(table->word[index]) != word_of(version, index);
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  if (table->version.load() != version) return false;
  result.torn += torn;
  result.seen.add(version);
  return true;
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 500'000), seed = arguments.number("seed", 1);
  const uint64_t write_every = arguments.number("write_every", 1000);
  if (write_every == 0) panic("write_every= must be at least 1");
  print("read_mostly cpus=", cpus(), " n=", n, " write_every=", write_every, "\n");
  for (uint32_t i = 0; i < kWords; ++i) table->word[i] = word_of(0, i);

  parallel(cpus(), [=](uint32_t worker) {
    Random random(seed, worker);
    Result result{};
    for (uint64_t i = 0; i < n; ++i) {
      if (random.below(write_every) == 0) {
        write_table();
        ++result.writes;
      } else {
        const uint32_t start = random.below(kWords);
        while (!read_table(start, result)) {
          ++result.retries;
          cpu_relax();
        }
      }
    }
    *results[worker] = result;
  });

  uint64_t writes = 0, torn = 0;
  Checksum checksum;
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    const Result& result = *results[worker];
    print("worker ", worker, ": writes=", result.writes, " retries=", result.retries, " torn=", result.torn,
          "\n");
    writes += result.writes;
    torn += result.torn;
    checksum.add(result.seen.value());
  }
  const bool right = torn == 0 && table->version.load() == 2 * writes;
  print("version=", table->version.load(), "\nchecksum=", hex(checksum.value()), right ? "\n" : "\nFAILED\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
