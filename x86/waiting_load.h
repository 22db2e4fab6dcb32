// Loads that wait for another processor to write.
#pragma once

#include "x86/instruction.h"

namespace reprise::x86 {

// Whether the instruction at state.rip reads memory in a loop that waits for that memory to change: from it
// the code can come, without a store of its own, through a PAUSE to a load with the same operand. Also the
// first load, which compilers put in front of the loop. A store to a fixed address does not count
// (safepoints), and one CMPXCHG may lie between (a queue lock looks whether it is the last before it waits).
// Looks at code only, so it does not matter whether this time the loop waits at all. Cost: some dozen
// instructions decoded, 0.4 us each.
[[nodiscard]] bool is_waiting_load(const CpuState& state, const LinearMemory& memory);

}  // namespace reprise::x86
