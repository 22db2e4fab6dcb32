// What delivering an exception or an interrupt touches.
// Source: Intel SDM vol. 3, 6.12.1 (stack switch), 6.14 (64-bit mode), 20.1.4 (real mode).
#include <cstring>

#include "x86/access_collector.h"

namespace reprise::x86 {
namespace {

// One bit a vector: 8, 10 to 14, 17, 21, and AMD's 29 and 30.
// Source: Intel SDM vol. 3, table 6-1; AMD APM vol. 2, table 8-1.
constexpr uint32_t kVectorsWithErrorCode = 1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21 | 1u << 29 | 1u << 30;

bool pushes_error_code(uint8_t vector) {
  return vector < 32 && (kVectorsWithErrorCode >> vector & 1) != 0;
}

struct Gate {
  uint16_t selector;
  uint8_t type;         // low four bits of the type field
  uint8_t level;        // DPL
  uint8_t stack_index;  // IST, 64-bit gates only
};

Gate gate_of(uint64_t low) {
  return {static_cast<uint16_t>(low >> 16), static_cast<uint8_t>(low >> 40 & 0xf),
          static_cast<uint8_t>(low >> 45 & 3), static_cast<uint8_t>(low >> 32 & 7)};
}

void deliver_real(AccessCollector& collector, uint8_t vector) {
  const CpuState& state = collector.state();
  collector.touch((state.idt.base + vector * uint64_t{4}) & 0xffff'ffff, 4, collector.system_touch());
  collector.touch_stack(collector.stack_pointer() - 6, 6, Right::kWrite);
}

// Where 64-bit delivery puts its frame: an IST stack, the stack of the inner level, or on from rsp.
void push_frame_64(AccessCollector& collector, const Gate& gate, uint8_t level, uint64_t bytes) {
  const CpuState& state = collector.state();
  uint64_t stack = state.registers[kRsp];
  if (gate.stack_index != 0 || level < state.cpl) {
    const uint64_t slot =
        gate.stack_index != 0 ? 0x24 + (gate.stack_index - 1u) * uint64_t{8} : 4 + level * uint64_t{8};
    uint8_t raw[8];
    if (collector.read(state.tr.base + slot, raw, collector.system_touch()) != TouchOutcome::kDone) return;
    std::memcpy(&stack, raw, sizeof stack);
  }
  stack &= ~0xfull;  // Intel SDM vol. 3, 6.14.2: the frame is aligned to 16 bytes
  collector.touch(stack - bytes, bytes, {.right = Right::kWrite, .user = level == 3});
}

// As above for 32-bit gates, whose TSS holds ESPn and SSn.
void push_frame_32(AccessCollector& collector, uint8_t level, uint64_t item, uint64_t items) {
  const CpuState& state = collector.state();
  if (level >= state.cpl) {
    collector.touch_stack(collector.stack_pointer() - items * item, items * item, Right::kWrite);
    return;
  }
  uint8_t raw[8];
  if (collector.read((state.tr.base + 4 + level * uint64_t{8}) & 0xffff'ffff, raw,
                     collector.system_touch()) != TouchOutcome::kDone)
    return;
  uint32_t stack = 0;
  uint16_t selector = 0;
  std::memcpy(&stack, raw, sizeof stack);
  std::memcpy(&selector, raw + 4, sizeof selector);
  uint64_t low = 0;
  if (!touch_descriptor(collector, selector, DescriptorUse::kLoad, low)) return;
  const uint64_t base = (low >> 16 & 0xff'ffff) | (low >> 56 & 0xff) << 24;
  const bool big = (low >> 54 & 1) != 0;
  const uint64_t bytes = (items + 2) * item;  // SS and ESP of the outer level come first
  const uint64_t offset = (stack - bytes) & (big ? 0xffff'ffff : 0xffff);
  collector.touch((base + offset) & 0xffff'ffff, bytes, {.right = Right::kWrite, .user = level == 3});
}

}  // namespace

Status AccessCollector::deliver(uint8_t vector, bool software) {
  // Faults of delivery itself end it here: what #DF would touch is decoded when it comes to that.
  delivering_ = true;
  if ((state_.cr0 & kCr0ProtectionEnable) == 0) {
    deliver_real(*this, vector);
    return {};
  }
  if (state_.virtual_8086())
    return fail(ErrorCode::kGuest,
                "cannot decode delivery of vector {} out of virtual-8086 mode at rip {:#x}", vector,
                state_.rip);
  const uint64_t gate_bytes = state_.long_mode_active() ? 16 : 8;
  const uint64_t gate_offset = vector * gate_bytes;
  if (gate_offset + gate_bytes - 1 > state_.idt.limit) return {};
  uint8_t raw[16] = {};
  if (read(state_.idt.base + gate_offset, std::span(raw).first(gate_bytes), system_touch()) !=
      TouchOutcome::kDone)
    return {};
  uint64_t low_gate = 0;
  std::memcpy(&low_gate, raw, sizeof low_gate);
  const Gate gate = gate_of(low_gate);
  if (software && gate.level < state_.cpl) return deliver(kVectorGeneralProtection, false);
  if ((low_gate >> 47 & 1) == 0) return {};  // not present
  if (gate.type == 5)
    return fail(ErrorCode::kGuest, "cannot decode delivery of vector {} through a task gate at rip {:#x}",
                vector, state_.rip);
  uint64_t code = 0;
  if (!touch_descriptor(*this, gate.selector, DescriptorUse::kLoad, code)) return {};
  const bool conforming = (code >> 42 & 1) != 0;
  const auto code_level = static_cast<uint8_t>(code >> 45 & 3);
  const uint8_t level = conforming || code_level > state_.cpl ? state_.cpl : code_level;
  const bool error_code = !software && pushes_error_code(vector);
  if (state_.long_mode_active()) {
    push_frame_64(*this, gate, level, error_code ? 48 : 40);
  } else {
    push_frame_32(*this, level, (gate.type & 8) != 0 ? 4 : 2, error_code ? 4 : 3);
  }
  return {};
}

Result<AccessSet> delivery_access(const CpuState& state, const PhysicalReader& reader,
                                  const AccessOptions& options, uint8_t vector) {
  AccessCollector collector(state, reader, options);
  TRY(collector.deliver(vector, false));
  return collector.finish();
}

}  // namespace reprise::x86
