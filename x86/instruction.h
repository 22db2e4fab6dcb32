// One instruction: decoded in one place, for all who ask what it is. Zydis does the decoding.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "x86/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::x86 {

inline constexpr size_t kLongestInstruction = 15;  // bytes; Intel SDM vol. 2, 2.3.11

// Threads: a value. Not initialised before decode() fills it: it has 900 bytes.
struct Instruction {
  ZydisDecodedInstruction decoded;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> storage;

  [[nodiscard]] std::span<const ZydisDecodedOperand> operands() const {
    return std::span(storage).first(decoded.operand_count);
  }
  [[nodiscard]] const ZydisDecodedOperand& operand(size_t index) const { return storage[index]; }
  [[nodiscard]] ZydisMnemonic mnemonic() const { return decoded.mnemonic; }
  [[nodiscard]] uint8_t length() const { return decoded.length; }  // in bytes

  // Near and far, conditional or not; calls and returns too.
  [[nodiscard]] bool is_branch() const { return decoded.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE; }
  // A string instruction with a REP prefix.
  [[nodiscard]] bool is_repeated() const;
  [[nodiscard]] bool is_iret() const;        // in all sizes
  [[nodiscard]] bool is_far_return() const;  // RETF and IRET in all sizes
  // Loads a segment register that is named as an operand; with SS, interrupts are held off for an
  // instruction.
  [[nodiscard]] bool loads_segment(const ZydisDecodedOperand& operand) const;
  [[nodiscard]] bool loads_stack_segment() const;
  [[nodiscard]] bool is_privileged() const { return (decoded.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0; }

  // Computes, compares, moves or jumps, with operands of any kind: raises nothing but what the address of an
  // operand raises, and neither saves nor loads flags that the processor's mode depends on.
  [[nodiscard]] bool only_computes() const;
  // What the processor's trap flag can step over unnoticed: only_computes(), and whatever else cannot raise
  // more than addresses do, and neither shows nor changes the trap flag. PAUSE is not: emulators carry out
  // the next instruction with it.
  [[nodiscard]] bool hides_trap_flag() const;
};

// A general register, the flags or rip: not x87, vector, segment, control or debug registers.
[[nodiscard]] bool is_general_register(const ZydisDecodedOperand& operand);

enum class DecodeOutcome : uint8_t {
  kDecoded,
  kMoreBytes,  // the bytes are the beginning of an instruction
  kTooLong,    // raises #GP
  kInvalid,    // raises #UD
};

// The first instruction in `code`, as a vCPU in this mode executes it. Cost: 0.4 us.
[[nodiscard]] DecodeOutcome decode(const CpuState& state, std::span<const uint8_t> code, Instruction& out);

// The linear address of the instruction at rip.
[[nodiscard]] Gva code_address(const CpuState& state, uint64_t rip);

// The instruction at rip. False: it cannot be read, or is none.
[[nodiscard]] bool fetch(const CpuState& state, const LinearMemory& memory, Instruction& out);

// How long instructions of 64-bit code are, without operands: five times as fast. As Intel decodes, on every
// host, so that what a kernel's patches depend on is the same everywhere. Threads: immutable.
class InstructionLengths {
 public:
  InstructionLengths();
  // In bytes; nothing: no instruction begins there.
  [[nodiscard]] std::optional<size_t> at(std::span<const uint8_t> code) const;

 private:
  ZydisDecoder decoder_;
};

}  // namespace reprise::x86
