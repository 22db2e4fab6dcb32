// Data operands: explicit and implicit memory, stack, strings, and the instructions whose operand is not what
// their encoding suggests.
#include <algorithm>

#include "x86/access_collector.h"

namespace reprise::x86 {
namespace {

uint64_t width_mask(unsigned bits) {
  return bits >= 64 ? ~0ull : (1ull << bits) - 1;
}

bool is_stack_pointer(ZydisRegister reg) {
  return reg == ZYDIS_REGISTER_RSP || reg == ZYDIS_REGISTER_ESP || reg == ZYDIS_REGISTER_SP;
}

// Operands that name memory without touching it, or without being able to fault.
// Source: Intel SDM vol. 2, PREFETCHh, PREFETCHW, CLDEMOTE, NOP, INVLPG.
bool touches_nothing(const Instruction& instruction) {
  switch (instruction.decoded.meta.category) {
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_PREFETCHWT1:
    case ZYDIS_CATEGORY_CLDEMOTE:
      return true;
    default:
      break;
  }
  return instruction.mnemonic() == ZYDIS_MNEMONIC_INVLPG;
}

// Lanes that a mask may switch off do not fault. The masks are not in CpuState, so all lanes are listed. MPX
// is a NOP where it is not enabled.
bool may_touch_less(const Instruction& instruction) {
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_BNDMOV:
      return true;
    case ZYDIS_MNEMONIC_MOVSXD:
      // Into a 16-bit register Intel reads two bytes (seen on hardware), Zydis says four.
      return instruction.decoded.operand_width == 16;
    default:
      break;
  }
  return instruction.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
         instruction.decoded.avx.mask.reg != ZYDIS_REGISTER_NONE &&
         instruction.decoded.avx.mask.reg != ZYDIS_REGISTER_K0;
}

Right right_of(const ZydisDecodedOperand& operand) {
  return (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? Right::kWrite : Right::kRead;
}

uint64_t start_of(const AccessCollector& collector, const Instruction& instruction,
                  const ZydisDecodedOperand& operand) {
  const CpuState& state = collector.state();
  return linear_address(state, segment_of(state, operand.mem.segment),
                        effective_offset(state, instruction, operand));
}

Touch touch_of(const AccessCollector& collector, const ZydisDecodedOperand& operand) {
  Touch how = collector.data_touch(right_of(operand));
  how.reads = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
  if (operand.mem.segment == ZYDIS_REGISTER_SS) how.bad_address_vector = kVectorStackFault;
  return how;
}

// --- strings ---

// The first element, and as much of what follows as the options allow. Source: Intel SDM vol. 2, REP.
void touch_string(AccessCollector& collector, const Instruction& instruction,
                  const ZydisDecodedOperand& operand) {
  const bool repeated = instruction.is_repeated();
  const uint64_t count =
      repeated ? collector.state().registers[kRcx] & width_mask(instruction.decoded.address_width) : 1;
  if (count == 0) return;
  const uint64_t element = operand.size / 8u;
  const uint64_t start = start_of(collector, instruction, operand);
  const Touch how = touch_of(collector, operand);
  const bool down = (collector.state().rflags >> 10 & 1) != 0;
  collector.touch(start, element, how);
  if (auto* touches = collector.options().touches; touches != nullptr && element != 0) {
    touches->back().repeats = repeated;
    touches->back().downwards = down;
  }
  const uint64_t extra = std::min(collector.options().extra_string_pages, kMaxStringPages) * kPageSize;
  if (count == 1 || extra == 0 || element == 0) return;
  Touch rest = how;
  rest.optional = true;  // CMPS and SCAS may stop earlier
  const uint64_t to_page_end = down ? start % kPageSize : (0 - (start + element)) % kPageSize;
  const uint64_t following = std::min((count - 1), (to_page_end + extra) / element) * element;
  collector.touch(down ? start - following : start + element, following, rest);
}

// --- stack ---

// ENTER pushes the frame pointer, copies the outer frames' pointers, and probes the new top of the stack.
// Source: Intel SDM vol. 2, ENTER.
void touch_enter(AccessCollector& collector, const Instruction& instruction) {
  const uint64_t item = instruction.decoded.operand_width / 8u;
  const uint64_t locals = instruction.operand(0).imm.value.u & 0xffff;
  const uint64_t level = instruction.operand(1).imm.value.u % 32;
  const uint64_t pushes = level == 0 ? 1 : level + 1;
  const uint64_t top = collector.stack_pointer() - pushes * item;
  collector.touch_stack(top, pushes * item, Right::kWrite);
  if (level > 1) {
    const uint64_t copied = (level - 1) * item;
    collector.touch_stack(collector.state().registers[kRbp] - copied, copied, Right::kRead);
  }
  collector.touch_stack(top - locals, item,
                        Right::kWrite);  // the probe is as wide as a push: seen on hardware
}

// A hidden operand at SS:rSP or SS:rBP. (XLAT and MASKMOVDQU have hidden operands elsewhere.)
bool is_stack_operand(const ZydisDecodedOperand& operand) {
  const ZydisRegister base = operand.mem.base;
  const bool frame = base == ZYDIS_REGISTER_RBP || base == ZYDIS_REGISTER_EBP || base == ZYDIS_REGISTER_BP;
  return operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && (frame || is_stack_pointer(base));
}

void touch_stack_operand(AccessCollector& collector, const ZydisDecodedOperand& operand) {
  const uint64_t bytes = operand.size / 8u;
  const Right right = right_of(operand);
  uint64_t offset = register_value(collector.state(), operand.mem.base);
  if (!is_stack_pointer(operand.mem.base)) offset = collector.state().registers[kRbp];  // LEAVE
  if (right == Right::kWrite) offset -= bytes;
  collector.touch_stack(offset, bytes, right);
}

// --- operands that mean something else ---

// Legacy area and header. Source: Intel SDM vol. 1, 13.4.
constexpr uint64_t kXsaveLegacyBytes = 576;

bool is_xsave(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
      return true;
    default:
      return false;
  }
}

void touch_xsave(AccessCollector& collector, const ZydisDecodedOperand& operand, uint64_t start) {
  Touch how = touch_of(collector, operand);
  collector.touch(start, kXsaveLegacyBytes, how);
  const uint64_t bytes = collector.options().xsave_bytes;
  // Beyond x87 and SSE only what EDX:EAX asks for is touched.
  const uint64_t asked =
      collector.state().registers[kRax] >> 2 | (collector.state().registers[kRdx] & 0xffff'ffff);
  if (bytes <= kXsaveLegacyBytes || (asked & 0xffff'ffff) == 0) return;
  how.optional = true;
  collector.touch(start + kXsaveLegacyBytes, bytes - kXsaveLegacyBytes, how);
}

constexpr uint64_t kCacheLineBytes = 64;

// Instructions that take their address from a register without a memory operand.
void touch_register_addressed(AccessCollector& collector, const Instruction& instruction) {
  const CpuState& state = collector.state();
  const uint64_t mask = width_mask(instruction.decoded.address_width);
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_UMONITOR: {
      const uint64_t offset = instruction.mnemonic() == ZYDIS_MNEMONIC_UMONITOR
                                  ? register_value(state, instruction.operand(0).reg.value)
                                  : state.registers[kRax];
      collector.touch(linear_address(state, state.ds, offset & mask), 1, collector.data_touch(Right::kRead));
      break;
    }
    case ZYDIS_MNEMONIC_CLZERO:
      collector.touch(linear_address(state, state.ds, state.registers[kRax] & mask) & ~(kCacheLineBytes - 1),
                      kCacheLineBytes, collector.data_touch(Right::kWrite));
      break;
    default:
      break;
  }
}

void touch_memory_operand(AccessCollector& collector, const Instruction& instruction,
                          const ZydisDecodedOperand& operand) {
  const uint64_t start = start_of(collector, instruction, operand);
  if (is_xsave(instruction.mnemonic())) return touch_xsave(collector, operand, start);
  uint64_t bytes = operand.size / 8u;
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
      bytes = 1;  // the line around the address, which never crosses a page
      break;
    default:
      break;
  }
  Touch how = touch_of(collector, operand);
  how.optional = may_touch_less(instruction);
  collector.touch(start, bytes, how);
}

tl::unexpected<Error> unsupported(const AccessCollector& collector, const Instruction& instruction) {
  return fail(ErrorCode::kGuest, "cannot decode the operands of {} at rip {:#x}",
              ZydisMnemonicGetString(instruction.mnemonic()), collector.state().rip);
}

bool is_tile_move(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_TILELOADD || mnemonic == ZYDIS_MNEMONIC_TILELOADDT1 ||
         mnemonic == ZYDIS_MNEMONIC_TILESTORED;
}

// The exception that some instructions are for.
std::optional<uint8_t> exception_of(const Instruction& instruction) {
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
      return kVectorInvalidOpcode;
    default:
      return std::nullopt;
  }
}

}  // namespace

Status touch_operands(AccessCollector& collector, const Instruction& instruction) {
  if (const auto vector = exception_of(instruction)) {
    collector.raise(*vector);
    return {};
  }
  if (touches_nothing(instruction)) return {};
  if (is_tile_move(instruction.mnemonic())) return unsupported(collector, instruction);
  if (instruction.mnemonic() == ZYDIS_MNEMONIC_ENTER) {
    touch_enter(collector, instruction);
    return {};
  }
  // Far returns pop as many items as the frame says: access_segments.cc.
  const bool far_return = instruction.is_far_return();
  const bool string = instruction.decoded.meta.category == ZYDIS_CATEGORY_STRINGOP ||
                      instruction.decoded.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
  for (const ZydisDecodedOperand& operand : instruction.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB) return unsupported(collector, instruction);
    if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM) continue;  // an address only (LEA, MPX)
    if (string) {
      touch_string(collector, instruction, operand);
    } else if (is_stack_operand(operand)) {
      if (!far_return) touch_stack_operand(collector, operand);
    } else {
      touch_memory_operand(collector, instruction, operand);
    }
  }
  touch_register_addressed(collector, instruction);
  return {};
}

}  // namespace reprise::x86
