// Where to look for addresses that a program comes to seldom (vmm/clock/rare_addresses.h).
#pragma once

#include <vector>

#include "base/units.h"
#include "x86/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

// Of a program in 64-bit user mode that stands there: the loops around the instruction that it is at, and
// where functions return to, as far as the stack shows; a guess, which trying has to decide. None of a
// program that reads its own code, as far as the next instructions show: it would see the breakpoints. Cost:
// some hundred instructions are decoded.
[[nodiscard]] std::vector<Gva> likely_rare(const x86::CpuState& state, const x86::LinearMemory& memory);

}  // namespace reprise::vmm
