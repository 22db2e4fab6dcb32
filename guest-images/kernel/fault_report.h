// The last words of a guest that did something impossible.
#pragma once

#include "kernel/thread_frame.h"

namespace reprise::guest::kernel {

// Prints vector, error code, CPU and registers, then exits with kExitException + vector.
[[noreturn]] void report_fault(const ThreadFrame& frame);

}  // namespace reprise::guest::kernel
