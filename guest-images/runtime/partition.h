// Dividing n things among workers.
#pragma once

#include <stdint.h>

namespace reprise::guest {

struct Range {
  uint64_t begin, end;
};

// Worker `worker`'s share of 0 .. n - 1: contiguous, and cut at multiples of `unit` only, so that
// with `unit` things on a page no page has two owners.
inline Range share_of(uint32_t worker, uint32_t workers, uint64_t n, uint64_t unit = 1) {
  const uint64_t units = (n + unit - 1) / unit;
  const uint64_t begin = units * worker / workers * unit, end = units * (worker + 1) / workers * unit;
  return {begin < n ? begin : n, end < n ? end : n};
}

}  // namespace reprise::guest
