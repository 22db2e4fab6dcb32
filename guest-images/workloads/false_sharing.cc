// Every worker counts in a word of its own; nothing is shared but the page. That is no race, yet with
// page ownership it costs as much as one. padded=1 gives each worker its own page: the cost is gone.
//
// Parameters: n (increments of each worker, 20000000), padded (0).
#include "kernel/layout.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/racy.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

OwnPage<OwnCacheLine<uint64_t>[MAX_CPUS]> together;
OwnPage<uint64_t> apart[MAX_CPUS];

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 20'000'000);
  const bool padded = arguments.flag("padded");
  print("false_sharing cpus=", cpus(), " n=", n, " padded=", uint32_t{padded}, "\n");

  parallel(cpus(), [=](uint32_t worker) {
    uint64_t& mine = padded ? *apart[worker] : together.value[worker].value;
    for (uint64_t i = 0; i < n; ++i) racy_add(mine, 1);
  });

  bool right = true;
  Checksum checksum;
  for (uint32_t worker = 0; worker < cpus(); ++worker) {
    const uint64_t got = padded ? *apart[worker] : together.value[worker].value;
    print("worker ", worker, ": expected=", n, " got=", got, got == n ? "\n" : " FAILED\n");
    right &= got == n;
    checksum.add(got);
  }
  print("checksum=", hex(checksum.value()), "\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
