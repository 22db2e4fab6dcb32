// Money moves between accounts without a lock. Each transfer is right by itself; interleaved, money
// appears and vanishes. The final balances are a fingerprint of the interleaving.
//
// Parameters: n (transfers of each worker, 5000000), accounts (64), seed (1), strict.
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/racy.h"
#include "runtime/random.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint64_t kOpeningBalance = 1000;

OwnPage<uint64_t> moved[MAX_CPUS];

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 5'000'000), seed = arguments.number("seed", 1);
  const uint64_t accounts = arguments.number("accounts", 64);
  if (accounts == 0) panic("accounts= must be at least 1");
  print("bank cpus=", cpus(), " n=", n, " accounts=", accounts, "\n");
  uint64_t* balance = allocate_array<uint64_t>(accounts);
  for (uint64_t i = 0; i < accounts; ++i) balance[i] = kOpeningBalance;

  parallel(cpus(), [=](uint32_t worker) {
    Random random(seed, worker);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; ++i) {
      const uint32_t from = random.below(accounts), to = random.below(accounts);
      const uint64_t amount = 1 + random.below(10);
      racy_add(balance[from], -amount);
      racy_add(balance[to], amount);
      sum += amount;
    }
    *moved[worker] = sum;
  });

  uint64_t total = 0;
  Checksum checksum;
  for (uint64_t i = 0; i < accounts; ++i) {
    total += balance[i];
    checksum.add(balance[i]);
  }
  for (uint32_t worker = 0; worker < cpus(); ++worker)
    print("worker ", worker, ": moved ", *moved[worker], "\n");
  const int64_t difference = static_cast<int64_t>(total - accounts * kOpeningBalance);
  print("expected=", accounts * kOpeningBalance, " got=", static_cast<int64_t>(total),
        " appeared=", difference, "\n");
  print("checksum=", hex(checksum.value()), "\n");
  if (cpus() == 1 && difference != 0) {
    print("FAILED: one CPU alone cannot lose money\n");
    return kExitWrongResult;
  }
  return status_of_race(arguments, difference != 0);
}

}  // namespace reprise::guest
