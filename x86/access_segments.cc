// What instructions touch because of segments and privilege: descriptors, far frames, the interrupt gate of
// INT, the I/O permission bitmap.
#include <cstring>

#include "x86/access_collector.h"

namespace reprise::x86 {
namespace {

// Source: Intel SDM vol. 3, 3.4.5 (figure 3-8) and table 3-2 (system types).
constexpr uint64_t kDescriptorAccessed = 1ull << 40;
constexpr uint64_t kDescriptorIsSegment = 1ull << 44;  // S: code or data, not a system descriptor
constexpr uint64_t kDescriptorPresent = 1ull << 47;

template <typename T>
T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

tl::unexpected<Error> unsupported(const AccessCollector& collector, const char* what) {
  return fail(ErrorCode::kGuest, "cannot decode {} at rip {:#x}", what, collector.state().rip);
}

// --- far returns ---

// Items of `item` bytes: rip, cs, [rflags], and for a change of level rsp, ss after `released` bytes.
// Source: Intel SDM vol. 2, RET and IRET/IRETD/IRETQ.
Status touch_far_return(AccessCollector& collector, const Instruction& instruction) {
  const CpuState& state = collector.state();
  const bool iret = instruction.is_iret();
  const uint64_t item = instruction.decoded.operand_width / 8u;
  const uint64_t top = collector.stack_pointer();
  const uint64_t items = iret ? 3 : 2;
  if (iret && collector.state().uses_descriptors() && (state.rflags >> 14 & 1) != 0 &&
      !collector.state().long_mode_active())
    return unsupported(collector, "a task switch by IRET");
  collector.touch_stack(top, items * item, Right::kRead);
  if (!collector.state().uses_descriptors()) return {};
  uint8_t raw[2];
  if (collector.read_stack(top + item, raw) != TouchOutcome::kDone) return {};
  const auto code = load<uint16_t>(raw);
  const bool outward = (code & 3) > state.cpl;
  uint64_t low = 0;
  if (iret && !collector.state().in_64bit() && state.cpl == 0) {
    uint8_t flags[4] = {};
    if (item == 4 && collector.read_stack(top + 2 * item, flags) != TouchOutcome::kDone) return {};
    if ((load<uint32_t>(flags) >> 17 & 1) != 0) {  // to virtual-8086 mode: nine items
      collector.touch_stack(top, 9 * item, Right::kRead);
      return {};
    }
  }
  touch_descriptor(collector, code, DescriptorUse::kLoad, low);
  // IRET in 64-bit mode pops the stack pointer whether or not the level changes.
  if (!outward && !(iret && collector.state().in_64bit())) return {};
  const bool releases = !iret && instruction.decoded.operand_count_visible > 0;
  const uint64_t released = releases ? instruction.operand(0).imm.value.u & 0xffff : 0;
  const uint64_t outer = top + items * item + released;
  collector.touch_stack(outer, 2 * item, Right::kRead);
  if (collector.read_stack(outer + item, raw) != TouchOutcome::kDone) return {};
  touch_descriptor(collector, load<uint16_t>(raw), DescriptorUse::kLoad, low);
  return {};
}

// --- far calls and jumps ---

// Source: Intel SDM vol. 3, 5.8.4 (call gates), 7.3 (task switching).
Status touch_far_target(AccessCollector& collector, uint16_t selector, bool call) {
  uint64_t low = 0;
  if (!touch_descriptor(collector, selector, DescriptorUse::kLoad, low)) return {};
  if ((low & kDescriptorIsSegment) != 0) return {};
  const auto type = static_cast<uint8_t>(low >> 40 & 0xf);
  if (type == 4 || type == 12) {
    uint64_t target = 0;
    if (!touch_descriptor(collector, static_cast<uint16_t>(low >> 16), DescriptorUse::kLoad, target))
      return {};
    const bool conforming = (target >> 42 & 1) != 0;
    if (call && !conforming && (target >> 45 & 3) < collector.state().cpl)
      return unsupported(collector, "a call gate to an inner level");
    const uint64_t frame = collector.state().long_mode_active() ? 16 : 8;
    if (call) collector.touch_stack(collector.stack_pointer() - frame, frame, Right::kWrite);
    return {};
  }
  if (type == 1 || type == 5 || type == 9) return unsupported(collector, "a task switch");
  return {};
}

// The selector of a far pointer or of a segment register load; false when it cannot be known yet.
bool read_selector(AccessCollector& collector, const Instruction& instruction,
                   const ZydisDecodedOperand& operand, uint64_t at, uint16_t& selector) {
  if (operand.type == ZYDIS_OPERAND_TYPE_POINTER) {
    selector = operand.ptr.segment;
    return true;
  }
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    selector = static_cast<uint16_t>(register_value(collector.state(), operand.reg.value));
    return true;
  }
  if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) return false;
  const uint64_t offset = effective_offset(collector.state(), instruction, operand) + at;
  uint8_t raw[2];
  const Segment& segment = segment_of(collector.state(), operand.mem.segment);
  if (collector.read(linear_address(collector.state(), segment, offset), raw,
                     collector.data_touch(Right::kRead)) != TouchOutcome::kDone)
    return false;
  selector = load<uint16_t>(raw);
  return true;
}

Status touch_far_transfer(AccessCollector& collector, const Instruction& instruction) {
  uint16_t selector = 0;
  if (!read_selector(collector, instruction, instruction.operand(0), instruction.decoded.operand_width / 8u,
                     selector))
    return {};
  return touch_far_target(collector, selector, instruction.decoded.meta.category == ZYDIS_CATEGORY_CALL);
}

// --- segment and table registers ---

bool is_segment_register(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.reg.value >= ZYDIS_REGISTER_ES &&
         operand.reg.value <= ZYDIS_REGISTER_GS;
}

// MOV to, POP of, and LDS/LES/LFS/LGS/LSS into a segment register.
void touch_segment_load(AccessCollector& collector, const Instruction& instruction) {
  uint16_t selector = 0;
  uint64_t low = 0;
  if (instruction.mnemonic() == ZYDIS_MNEMONIC_POP) {
    uint8_t raw[2];
    if (collector.read_stack(collector.stack_pointer(), raw) != TouchOutcome::kDone) return;
    selector = load<uint16_t>(raw);
  } else {
    const uint64_t at = instruction.decoded.meta.category == ZYDIS_CATEGORY_SEGOP
                            ? instruction.decoded.operand_width / 8u
                            : 0;
    if (!read_selector(collector, instruction, instruction.operand(1), at, selector)) return;
  }
  touch_descriptor(collector, selector, DescriptorUse::kLoad, low);
}

bool loads_segment(const Instruction& instruction) {
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_POP:
      return is_segment_register(instruction.operand(0));
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
      return true;
    default:
      return false;
  }
}

void touch_selector_operand(AccessCollector& collector, const Instruction& instruction,
                            const ZydisDecodedOperand& operand, DescriptorUse use) {
  uint16_t selector = 0;
  uint64_t low = 0;
  if (read_selector(collector, instruction, operand, 0, selector))
    touch_descriptor(collector, selector, use, low);
}

// --- I/O ---

constexpr uint64_t kMapBaseOffset = 0x66;  // in the TSS, 16 bits. Source: Intel SDM vol. 3, figure 7-2

// Source: Intel SDM vol. 1, 19.5.2: two bytes of the bitmap are always read.
void touch_io_bitmap(AccessCollector& collector, const Instruction& instruction) {
  const CpuState& state = collector.state();
  const bool checked = (state.cr0 & kCr0ProtectionEnable) != 0 &&
                       (collector.state().virtual_8086() || state.cpl > (state.rflags >> 12 & 3));
  if (!checked) return;
  uint8_t raw[2];
  if (kMapBaseOffset + 1 > state.tr.limit) return collector.raise(kVectorGeneralProtection);
  if (collector.read(state.tr.base + kMapBaseOffset, raw, collector.system_touch()) != TouchOutcome::kDone)
    return;
  uint64_t port = state.registers[kRdx] & 0xffff;
  unsigned bytes = instruction.decoded.operand_width / 8u;
  for (const ZydisDecodedOperand& operand : instruction.operands())
    if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) port = operand.imm.value.u & 0xff;
  const uint64_t at = load<uint16_t>(raw) + port / 8;
  if (at + 1 > state.tr.limit) return collector.raise(kVectorGeneralProtection);
  if (collector.read(state.tr.base + at, raw, collector.system_touch()) != TouchOutcome::kDone) return;
  if (bytes > 4) bytes = 4;
  if ((load<uint16_t>(raw) >> port % 8 & ((1u << bytes) - 1)) != 0) collector.raise(kVectorGeneralProtection);
}

// --- software interrupts ---

// INT n, INT3, INTO and INT1 go through the IDT. Source: Intel SDM vol. 2, INT n.
Status touch_interrupt(AccessCollector& collector, const Instruction& instruction) {
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_INT:
      return collector.deliver(static_cast<uint8_t>(instruction.operand(0).imm.value.u), true);
    case ZYDIS_MNEMONIC_INT3:
      return collector.deliver(3, true);
    case ZYDIS_MNEMONIC_INT1:
      return collector.deliver(1, false);
    case ZYDIS_MNEMONIC_INTO:
      if ((collector.state().rflags >> 11 & 1) == 0) return {};
      return collector.deliver(4, true);
    default:  // BOUND: its operand is ordinary, and its #BR depends on data
      return {};
  }
}

}  // namespace

bool touch_descriptor(AccessCollector& collector, uint16_t selector, DescriptorUse use, uint64_t& low) {
  const CpuState& state = collector.state();
  if ((selector & ~3u) == 0) return false;
  const bool local = (selector & 4) != 0;
  const uint64_t limit = local ? state.ldt.limit : state.gdt.limit;
  if ((selector | 7u) > limit) {
    if (use != DescriptorUse::kInspect) collector.raise(kVectorGeneralProtection);
    return false;
  }
  const uint64_t address = (local ? state.ldt.base : state.gdt.base) + (selector & ~7u);
  uint8_t raw[8];
  if (collector.read(address, raw, collector.system_touch()) != TouchOutcome::kDone) return false;
  low = load<uint64_t>(raw);
  const bool segment = (low & kDescriptorIsSegment) != 0;
  if (!segment && collector.state().long_mode_active())
    collector.touch(address + 8, 8, collector.system_touch());
  const bool sets_accessed = use == DescriptorUse::kLoad && segment && (low & kDescriptorPresent) != 0 &&
                             (low & kDescriptorAccessed) == 0;
  if (sets_accessed || use == DescriptorUse::kTask)
    collector.touch(address, 8, collector.system_touch(Right::kWrite));
  return true;
}

Status touch_segments(AccessCollector& collector, const Instruction& instruction) {
  if (instruction.decoded.meta.category == ZYDIS_CATEGORY_INTERRUPT)
    return touch_interrupt(collector, instruction);
  if (instruction.decoded.meta.category == ZYDIS_CATEGORY_IO ||
      instruction.decoded.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) {
    touch_io_bitmap(collector, instruction);
    return {};
  }
  if (instruction.is_far_return()) return touch_far_return(collector, instruction);
  if (!collector.state().uses_descriptors()) return {};
  if (instruction.decoded.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
    return touch_far_transfer(collector, instruction);
  if (loads_segment(instruction)) {
    touch_segment_load(collector, instruction);
    return {};
  }
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_LTR:
      touch_selector_operand(collector, instruction, instruction.operand(0), DescriptorUse::kTask);
      break;
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
      touch_selector_operand(collector, instruction, instruction.operand(0), DescriptorUse::kInspect);
      break;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
      touch_selector_operand(collector, instruction, instruction.operand(1), DescriptorUse::kInspect);
      break;
    default:
      break;
  }
  return {};
}

}  // namespace reprise::x86
