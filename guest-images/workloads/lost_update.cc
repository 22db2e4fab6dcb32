// The simplest race: every worker adds 1 to one counter, n times, without a lock. Updates that fall
// between another worker's load and store are lost; how many depends on the interleaving alone.
//
// Parameters: n (increments of each worker, 20000000), strict.
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/racy.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

OwnPage<uint64_t> counter;
OwnPage<uint64_t> last_seen[MAX_CPUS];  // the counter after each worker's last increment

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 20'000'000);
  print("lost_update cpus=", cpus(), " n=", n, "\n");

  parallel(cpus(), [n](uint32_t worker) {
    for (uint64_t i = 0; i < n; ++i) racy_add(*counter, 1);
    *last_seen[worker] = racy_load(*counter);
  });

  const uint64_t expected = n * cpus(), got = *counter;
  Checksum checksum;
  checksum.add(got);
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    print("worker ", worker, ": saw ", *last_seen[worker], " at its end\n");
    checksum.add(*last_seen[worker]);
  }
  print("expected=", expected, " got=", got, " lost=", expected - got, "\n");
  print("checksum=", hex(checksum.value()), "\n");
  if (got > expected || got == 0) {
    print("FAILED: the counter is outside of what any interleaving can give\n");
    return kExitWrongResult;
  }
  return status_of_race(arguments, got != expected);
}

}  // namespace reprise::guest
