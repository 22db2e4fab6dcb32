// Whether this host's branch counter can be trusted: guests of a few bytes, of each of which it is known how
// many conditional branches it retires, are run and counted. A counter that is wrong once is not used.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "vmm/kvm/branch_counter.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// What was found. All numbers are branches, but for `runs`.
struct BranchClock {
  BranchEvent event;
  uint64_t runs = 0;  // of guests, each counted exactly
  uint64_t branches = 0;
  // How late interrupts came.
  uint64_t skid_median = 0, skid_p99 = 0, skid_most = 0;
  uint64_t shortest_period = 0;  // that the kernel accepts, and interrupts for

  // So much before a place the counter is set to interrupt: twice what was seen, and some more for what was
  // not.
  [[nodiscard]] uint64_t early() const { return 2 * skid_most + 32; }
};

// Runs `runs` guests at least, of nine kinds in turn. Errors: kHost, one sentence: there is no counter, or it
// counts wrong, with what it may be and what to do. Cost: 60 us a run on hardware (estimated), 1 ms in the
// lab.
Result<BranchClock> check_branch_counter(const Kvm& kvm, uint64_t runs);

}  // namespace reprise::vmm
