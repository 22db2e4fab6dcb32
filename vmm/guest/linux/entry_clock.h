// The kernel clock: the function entries of an unmodified Linux kernel count.
//
// A kernel that can trace functions calls __fentry__ at the entry of each of them, modules too, and replaces
// the calls when it boots: ftrace_init(), and ftrace_module_init() for each module. Both are made to return
// at once, so the calls stay. __fentry__, which only returns, is made to jump to a stub that does what a
// compiled safepoint does (docs/guest-abi.md, "clock page"): it adds 1 to the count in the vCPU's clock page,
// and where the limit is reached, it exits. At a function's entry r11 and the flags hold nothing; all else is
// as before. Source: Linux, arch/x86/kernel/ftrace_64.S, kernel/trace/ftrace.c.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/units.h"

namespace reprise::vmm {

class Kallsyms;
class LoadedKernel;

// Of a kernel in which everything is in place but the jump: before the kernel has mapped all memory, the stub
// could not reach the clock page.
struct EntryClock {
  Gpa entry;                         // of __fentry__
  std::array<uint8_t, 5> jump = {};  // what stands there once function entries count
  Gpa tick;                          // of the instruction by which the stub exits
  Gpa spare;                         // behind the stub: bytes that nothing executes any more
  uint64_t spare_bytes = 0;
};

// The clock page of the vCPU (kProgramClock, linux.h) where the kernel has all of its memory, once it has
// mapped it: the direct mapping of a kernel with four levels of page tables and without KASLR, which it is
// told to leave off (linux.cc). Source: Linux, Documentation/x86/x86_64/mm.rst.
inline constexpr Gva kClockInDirectMap{0xffff8880000d0000};

// Puts everything in place. `symbols`: the kernel's; none: it has none. Nothing is changed where it fails.
// Errors: kUsage: the kernel cannot trace functions, or does it otherwise than is known here.
Result<EntryClock> prepare_entry_clock(LoadedKernel& kernel, const std::optional<Kallsyms>& symbols);

}  // namespace reprise::vmm
