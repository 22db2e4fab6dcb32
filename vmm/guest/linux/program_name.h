// Which program a Linux process executes, by what the kernel put on its stack.
#pragma once

#include <string>

#include "base/units.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

// The name of the file as it was given to execve(), for the first thread of a process in user mode whose
// stack pointer is `stack`; empty if it is not found, or holds something else than printable ASCII. The name
// ends eight bytes below the end of the stack. Source: Linux, fs/exec.c, __bprm_mm_init() and
// copy_string_kernel(bprm->filename, bprm).
[[nodiscard]] std::string program_name(const x86::LinearMemory& memory, Gva stack);

}  // namespace reprise::vmm
