// The host's monotonic clock: for costs and time-outs, never for what a guest sees.
#pragma once

#include <cstdint>
#include <ctime>

namespace reprise {

// Nanoseconds since an arbitrary moment. Source: clock_gettime(2), CLOCK_MONOTONIC.
inline uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Nanoseconds that the calling thread has executed, in a guest as well. Source: the same,
// CLOCK_THREAD_CPUTIME_ID.
inline uint64_t thread_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace reprise
