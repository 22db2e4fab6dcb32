// Where the memory operands of an instruction are.
#pragma once

#include <Zydis/Zydis.h>

#include <cstdint>
#include <optional>

#include "x86/access.h"

namespace reprise::x86 {

// Of the instruction at rip, before it. Threads: immutable.
class OperandAddresses {
 public:
  explicit OperandAddresses(const CpuState& state);

  // The linear address of a memory operand, in 64-bit mode. Nothing: it cannot be computed from general
  // registers.
  [[nodiscard]] std::optional<uint64_t> of(const ZydisDecodedInstruction& instruction,
                                           const ZydisDecodedOperand& operand) const;

 private:
  ZydisRegisterContext context_{};
  uint64_t rip_, fs_base_, gs_base_;
};

}  // namespace reprise::x86
