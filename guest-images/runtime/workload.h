// What a workload is: one function.
#pragma once

#include <stdint.h>

#include "runtime/arguments.h"
#include "runtime/parallel.h"
#include "runtime/print.h"

namespace reprise::guest {

// Exit statuses of a workload.
inline constexpr uint32_t kExitSuccess = 0;
inline constexpr uint32_t kExitWrongResult = 1;  // the program's own check failed
inline constexpr uint32_t kExitRaceSeen = 3;     // strict=1 and the race that the program is about was lost

// Each image defines it. Runs on CPU 0 when all CPUs have started; the result is the exit status.
uint32_t workload(const Arguments& arguments);

// For programs whose point is a race: seeing it is not a failure unless strict=1.
inline uint32_t status_of_race(const Arguments& arguments, bool seen) {
  return arguments.flag("strict") && seen ? kExitRaceSeen : kExitSuccess;
}

}  // namespace reprise::guest
