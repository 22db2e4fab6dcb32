// Data that moves: one record is locked, read, changed and handed on, between stretches of private
// work. Every visit has to fetch the record from whoever had it last.
//
// Parameters: n (visits of each worker, 20000), work (private steps between visits, 1000), seed (1).
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/random.h"
#include "runtime/spin_lock.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

// On the lock's page: who gets the lock gets the record.
struct Record {
  SpinLock lock;
  uint64_t visits[MAX_CPUS];
  uint64_t word[64];
};

OwnPage<Record> record;
OwnPage<uint64_t> private_result[MAX_CPUS];

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 20'000), work = arguments.number("work", 1000);
  const uint64_t seed = arguments.number("seed", 1);
  print("migratory cpus=", cpus(), " n=", n, " work=", work, "\n");

  parallel(cpus(), [=](uint32_t worker) {
    Random random(seed, worker);
    uint64_t sum = 0;
    for (uint64_t visit = 0; visit < n; ++visit) {
      for (uint64_t step = 0; step < work; ++step) sum += random.next();
      Locked hold(record->lock);
      ++record->visits[worker];
      for (uint64_t& word : record->word) word = word * 33 + sum;
    }
    *private_result[worker] = sum;
  });

  bool right = true;
  Checksum checksum;
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    print("worker ", worker, ": visits=", record->visits[worker], " private=", hex(*private_result[worker]),
          "\n");
    right &= record->visits[worker] == n;
  }
  for (const uint64_t word : record->word) checksum.add(word);
  print("checksum=", hex(checksum.value()), right ? "\n" : "\nFAILED: a visit is missing\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
