// What each system call does; the list is in kernel/system_call_numbers.h.
#pragma once

#include "kernel/thread_frame.h"

namespace reprise::guest::kernel {

// Carries out the call in `frame` and puts the result into its rax. May leave another thread's registers
// there.
void system_call(ThreadFrame& frame);

}  // namespace reprise::guest::kernel
