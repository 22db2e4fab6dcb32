#include "x86/instruction.h"

#include <algorithm>

namespace reprise::x86 {
namespace {

// Source: Intel SDM vol. 3, 2.2 (modes) and 3.4.5 (the L and D/B flags).
ZydisMachineMode machine_mode(const CpuState& state) {
  if (state.in_64bit()) return ZYDIS_MACHINE_MODE_LONG_64;
  if (!state.uses_descriptors()) return ZYDIS_MACHINE_MODE_REAL_16;
  if (state.long_mode_active())
    return state.cs.default_32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
  return state.cs.default_32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LEGACY_16;
}

ZydisStackWidth stack_width(const CpuState& state) {
  if (state.in_64bit()) return ZYDIS_STACK_WIDTH_64;
  return state.ss.default_32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16;
}

bool decodes_as_amd(const CpuState& state) {
  return state.vendor == Vendor::kAmd && state.in_64bit();
}

ZydisDecoder decoder_for(const CpuState& state) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, machine_mode(state), stack_width(state));
  if (decodes_as_amd(state)) ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
  return decoder;
}

bool is_undefined_opcode(const Instruction& instruction) {
  return instruction.mnemonic() == ZYDIS_MNEMONIC_UD0 || instruction.mnemonic() == ZYDIS_MNEMONIC_UD1;
}

// Zydis' mode for AMD knows of displacements only (Zydis 4.0): the target that is read from memory, and the
// return address that is pushed or popped, are as wide.
void narrow_near_branch(Instruction& instruction) {
  const auto& decoded = instruction.decoded;
  const bool wide = (decoded.attributes & ZYDIS_ATTRIB_HAS_REX) != 0 && decoded.raw.rex.W != 0;
  if (decoded.meta.branch_type != ZYDIS_BRANCH_TYPE_NEAR || wide ||
      (decoded.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) == 0)
    return;
  constexpr ZyanU16 kBits = 16;
  instruction.decoded.operand_width = kBits;
  for (auto& operand : std::span(instruction.storage).first(decoded.operand_count))
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) operand.size = kBits;
}

ZyanStatus decode_bytes(const ZydisDecoder& decoder, std::span<const uint8_t> code, Instruction& out) {
  return ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &out.decoded, out.storage.data());
}

// Whether an opcode that raises #UD is complete, whatever follows.
bool begins_undefined_opcode(const ZydisDecoder& decoder, std::span<const uint8_t> code, Instruction& out) {
  std::array<uint8_t, kLongestInstruction> padded{};
  std::ranges::copy(code.first(std::min(code.size(), padded.size())), padded.begin());
  // Where the opcode is cut off, zeros complete it to another one.
  return ZYAN_SUCCESS(decode_bytes(decoder, padded, out)) && is_undefined_opcode(out);
}

}  // namespace

bool Instruction::is_repeated() const {
  constexpr ZydisInstructionAttributes kRepeated =
      ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
  return (decoded.attributes & kRepeated) != 0;
}

bool Instruction::is_iret() const {
  return decoded.mnemonic == ZYDIS_MNEMONIC_IRET || decoded.mnemonic == ZYDIS_MNEMONIC_IRETD ||
         decoded.mnemonic == ZYDIS_MNEMONIC_IRETQ;
}

bool Instruction::is_far_return() const {
  return is_iret() ||
         (decoded.mnemonic == ZYDIS_MNEMONIC_RET && decoded.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR);
}

bool Instruction::loads_segment(const ZydisDecodedOperand& operand) const {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
         (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 &&
         ZydisRegisterGetClass(operand.reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

bool Instruction::loads_stack_segment() const {
  if (decoded.mnemonic != ZYDIS_MNEMONIC_MOV && decoded.mnemonic != ZYDIS_MNEMONIC_POP) return false;
  return std::ranges::any_of(operands(), [this](const auto& operand) {
    return loads_segment(operand) && operand.reg.value == ZYDIS_REGISTER_SS;
  });
}

bool Instruction::only_computes() const {
  switch (decoded.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
      return decoded.mnemonic != ZYDIS_MNEMONIC_DIV && decoded.mnemonic != ZYDIS_MNEMONIC_IDIV;  // #DE
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_WIDENOP:
      return true;
    default:
      return decoded.mnemonic == ZYDIS_MNEMONIC_LEA;
  }
}

bool Instruction::hides_trap_flag() const {
  if (only_computes()) return true;
  switch (decoded.meta.category) {
    case ZYDIS_CATEGORY_SEMAPHORE:
      return decoded.mnemonic != ZYDIS_MNEMONIC_CMPXCHG16B;  // #GP where its operand is not aligned
    case ZYDIS_CATEGORY_FLAGOP:
      return decoded.mnemonic != ZYDIS_MNEMONIC_CLI && decoded.mnemonic != ZYDIS_MNEMONIC_STI;
    // What saves the flags would save the trace flag, what loads them would take it away.
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
      return decoded.mnemonic == ZYDIS_MNEMONIC_PUSH || decoded.mnemonic == ZYDIS_MNEMONIC_POP;
    case ZYDIS_CATEGORY_RET:
      return decoded.mnemonic == ZYDIS_MNEMONIC_RET;  // not IRET
    case ZYDIS_CATEGORY_MISC:
      return decoded.mnemonic == ZYDIS_MNEMONIC_LEAVE || decoded.mnemonic == ZYDIS_MNEMONIC_XLAT;
    case ZYDIS_CATEGORY_AVX:
    case ZYDIS_CATEGORY_AVX2:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_STRINGOP:
      return true;
    default:
      return false;
  }
}

bool is_general_register(const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
  switch (ZydisRegisterGetClass(operand.reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_FLAGS:
    case ZYDIS_REGCLASS_IP:
      return true;
    default:
      return false;
  }
}

DecodeOutcome decode(const CpuState& state, std::span<const uint8_t> code, Instruction& out) {
  const ZydisDecoder decoder = decoder_for(state);
  const ZyanStatus status = decode_bytes(decoder, code, out);
  if (ZYAN_SUCCESS(status)) {
    if (decodes_as_amd(state)) narrow_near_branch(out);
    return DecodeOutcome::kDecoded;
  }
  if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) return DecodeOutcome::kTooLong;
  if (status != ZYDIS_STATUS_NO_MORE_DATA) return DecodeOutcome::kInvalid;
  if (code.size() >= kLongestInstruction) return DecodeOutcome::kTooLong;
  if (state.vendor == Vendor::kAmd && begins_undefined_opcode(decoder, code, out))
    return DecodeOutcome::kInvalid;
  return DecodeOutcome::kMoreBytes;
}

Gva code_address(const CpuState& state, uint64_t rip) {
  return state.in_64bit() ? Gva(rip) : Gva((state.cs.base + rip) & 0xffff'ffff);
}

bool fetch(const CpuState& state, const LinearMemory& memory, Instruction& out) {
  std::array<uint8_t, kLongestInstruction> code{};
  const size_t bytes =
      memory.read(code_address(state, state.rip), code, {.fetch = true, .user = state.cpl == 3});
  return decode(state, std::span(code).first(bytes), out) == DecodeOutcome::kDecoded;
}

InstructionLengths::InstructionLengths() {
  ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecoderEnableMode(&decoder_, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
}

std::optional<size_t> InstructionLengths::at(std::span<const uint8_t> code) const {
  ZydisDecodedInstruction instruction;
  ZydisDecoderContext context;
  if (!ZYAN_SUCCESS(
          ZydisDecoderDecodeInstruction(&decoder_, &context, code.data(), code.size(), &instruction)))
    return std::nullopt;
  return instruction.length;
}

}  // namespace reprise::x86
