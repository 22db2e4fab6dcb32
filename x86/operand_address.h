// Where the memory operands of an instruction are.
#pragma once

#include <optional>

#include "base/units.h"
#include "x86/instruction.h"

namespace reprise::x86 {

// A general register in any of its widths, extended by zeros; 0 for all others.
[[nodiscard]] uint64_t register_value(const CpuState& state, ZydisRegister reg);
// DS for what is no segment register.
[[nodiscard]] const Segment& segment_of(const CpuState& state, ZydisRegister reg);

// The offset in its segment of a memory operand, as wide as the instruction's addresses. Of a string: its
// first element; of BT and its family: the operand that holds the bit. Requires: no vector register is part
// of it. Source: Intel SDM vol. 1, 3.7.5.
[[nodiscard]] uint64_t effective_offset(const CpuState& state, const Instruction& instruction,
                                        const ZydisDecodedOperand& operand);
// Source: Intel SDM vol. 3, 3.4.4 (64-bit mode has only FS and GS). `segment`: one of the state's.
[[nodiscard]] uint64_t linear_address(const CpuState& state, const Segment& segment, uint64_t offset);
// Both. Nothing: it cannot be computed from general registers.
[[nodiscard]] std::optional<Gva> operand_address(const CpuState& state, const Instruction& instruction,
                                                 const ZydisDecodedOperand& operand);

}  // namespace reprise::x86
