#include "x86/operand_address.h"

#include <bit>

namespace reprise::x86 {
namespace {

uint64_t width_mask(unsigned bits) {
  return bits >= 64 ? ~0ull : (1ull << bits) - 1;
}

bool is_stack_pointer(ZydisRegister reg) {
  return reg == ZYDIS_REGISTER_RSP || reg == ZYDIS_REGISTER_ESP || reg == ZYDIS_REGISTER_SP;
}

bool is_bit_test(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_BT || mnemonic == ZYDIS_MNEMONIC_BTS || mnemonic == ZYDIS_MNEMONIC_BTR ||
         mnemonic == ZYDIS_MNEMONIC_BTC;
}

// BT and its family reach beyond their operand when the bit number is in a register.
// Source: Intel SDM vol. 2, 3.1.1.9 (figure 3-2) and BT.
uint64_t bit_displacement(const CpuState& state, const Instruction& instruction) {
  const ZydisDecodedOperand& bit = instruction.operand(1);
  if (bit.type != ZYDIS_OPERAND_TYPE_REGISTER) return 0;
  const unsigned width = instruction.operand(0).size;
  if (width != 16 && width != 32 && width != 64) return 0;
  const int unused = 64 - static_cast<int>(width);
  const auto number = static_cast<int64_t>(register_value(state, bit.reg.value) << unused) >> unused;
  return static_cast<uint64_t>(number >> std::countr_zero(width)) * (width / 8);
}

// Zydis before 5 reads [disp32] in SIB form as [r13d] under REX.B and a 32-bit address size. Remove when the
// oldest Zydis that we build with has its fix 593. Source: Zydis issue 592; Intel SDM vol. 2, table 2-3,
// note 1.
bool is_misread_r13d(const ZydisDecodedInstruction& instruction, const ZydisDecodedOperandMem& memory) {
  return memory.base == ZYDIS_REGISTER_R13D && !memory.disp.has_displacement &&
         instruction.raw.modrm.mod == 0 && instruction.raw.modrm.rm == 4 && instruction.raw.sib.base == 5;
}

// As the operand's encoding says.
uint64_t encoded_offset(const CpuState& state, const Instruction& instruction,
                        const ZydisDecodedOperand& operand) {
  const ZydisDecodedOperandMem& memory = operand.mem;
  if (is_misread_r13d(instruction.decoded, memory))
    return static_cast<uint64_t>(instruction.decoded.raw.disp.value) +
           register_value(state, memory.index) * memory.scale;
  ZydisRegisterContext context;  // 2 KiB, of which these are looked at
  context.values[memory.base] = register_value(state, memory.base);
  context.values[memory.index] = register_value(state, memory.index);
  ZyanU64 offset = 0;
  ZydisCalcAbsoluteAddressEx(&instruction.decoded, &operand, state.rip, &context, &offset);
  return offset;
}

}  // namespace

uint64_t register_value(const CpuState& state, ZydisRegister reg) {
  if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
    return state.registers[reg - ZYDIS_REGISTER_RAX];
  if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
    return state.registers[reg - ZYDIS_REGISTER_EAX] & 0xffff'ffff;
  if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
    return state.registers[reg - ZYDIS_REGISTER_AX] & 0xffff;
  return 0;  // no register: contributes nothing to an address
}

const Segment& segment_of(const CpuState& state, ZydisRegister reg) {
  switch (reg) {
    case ZYDIS_REGISTER_CS:
      return state.cs;
    case ZYDIS_REGISTER_SS:
      return state.ss;
    case ZYDIS_REGISTER_ES:
      return state.es;
    case ZYDIS_REGISTER_FS:
      return state.fs;
    case ZYDIS_REGISTER_GS:
      return state.gs;
    default:
      return state.ds;
  }
}

uint64_t effective_offset(const CpuState& state, const Instruction& instruction,
                          const ZydisDecodedOperand& operand) {
  uint64_t offset = encoded_offset(state, instruction, operand);
  const ZydisMnemonic mnemonic = instruction.mnemonic();
  // POP computes the address of its destination after moving the stack pointer. Source: Intel SDM vol. 2,
  // POP.
  if (mnemonic == ZYDIS_MNEMONIC_POP && is_stack_pointer(operand.mem.base) &&
      operand.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
    offset += operand.size / 8u;
  if (is_bit_test(mnemonic)) offset += bit_displacement(state, instruction);
  if (mnemonic == ZYDIS_MNEMONIC_XLAT) offset += state.registers[kRax] & 0xff;
  return offset & width_mask(instruction.decoded.address_width);
}

uint64_t linear_address(const CpuState& state, const Segment& segment, uint64_t offset) {
  if (!state.in_64bit()) return (segment.base + offset) & 0xffff'ffff;
  return &segment == &state.fs || &segment == &state.gs ? segment.base + offset : offset;
}

std::optional<Gva> operand_address(const CpuState& state, const Instruction& instruction,
                                   const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB)
    return std::nullopt;
  return Gva(linear_address(state, segment_of(state, operand.mem.segment),
                            effective_offset(state, instruction, operand)));
}

}  // namespace reprise::x86
