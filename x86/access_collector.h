// What the parts of access decoding share: linear memory as the instruction sees it, and the set being built.
// Internal to x86/access*.cc.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "x86/access.h"
#include "x86/instruction.h"
#include "x86/operand_address.h"

namespace reprise::x86 {

// How one access is made.
struct Touch {
  Right right = Right::kRead;
  bool reads = false;  // also, if the right is kWrite
  bool fetch = false;
  bool user = false;    // translated with the rights of CPL 3
  bool system = false;  // by the processor itself, to a descriptor table or a TSS
  // The instruction may do without it (the masked part of a store, the tail of an XSAVE area): a page that
  // the guest does not map raises nothing for certain.
  bool optional = false;
  uint8_t bad_address_vector = kVectorGeneralProtection;  // raised by a non-canonical address
};

enum class TouchOutcome : uint8_t {
  kDone,
  kFault,       // the guest does not map it so; recorded unless optional
  kUnreadable,  // must be acquired first: the set is marked incomplete
};

// Widest linear range that one touch may name, in bytes; larger ones are cut. Above any XSAVE area (AMX:
// 11 KiB) and kMaxStringPages.
inline constexpr uint64_t kMaxTouchBytes = 16 * kPageSize;

// Threads: confined to one decode_access() call.
class AccessCollector {
 public:
  AccessCollector(const CpuState& state, const PhysicalReader& reader, const AccessOptions& options);

  // --- memory ---
  // Adds the pages of `bytes` bytes from `linear`, with the page tables that lead there.
  TouchOutcome touch(uint64_t linear, uint64_t bytes, Touch how);
  // As touch(), and copies what is there.
  TouchOutcome read(uint64_t linear, std::span<uint8_t> out, Touch how);
  // Stack bytes at SS:offset, where the offset wraps at the stack's width.
  TouchOutcome touch_stack(uint64_t offset, uint64_t bytes, Right right);
  TouchOutcome read_stack(uint64_t offset, std::span<uint8_t> out);

  // --- exceptions ---
  // Records that `vector` is certain. The first one counts.
  void raise(uint8_t vector, Gva address = {});
  // Adds what delivering a vector touches (access_delivery.cc).
  Status deliver(uint8_t vector, bool software);
  [[nodiscard]] Touch system_touch(Right right = Right::kRead) const {
    return {.right = right, .system = true};
  }
  [[nodiscard]] Touch data_touch(Right right) const { return {.right = right, .user = user_}; }

  [[nodiscard]] uint64_t stack_mask() const;
  [[nodiscard]] uint64_t stack_pointer() const { return state_.registers[kRsp] & stack_mask(); }

  const CpuState& state() const { return state_; }
  const AccessOptions& options() const { return options_; }
  AccessSet& set() { return set_; }

  // Ends decoding: adds the delivery of what was raised.
  Result<AccessSet> finish();

 private:
  TouchOutcome touch_page(uint64_t linear, Touch how, Gpa& gpa);
  void note(uint64_t linear, uint64_t bytes, const Touch& how);
  [[nodiscard]] bool canonical(uint64_t linear) const;

  const CpuState& state_;
  const PhysicalReader& reader_;
  const AccessOptions& options_;
  PagingState paging_;
  bool user_;
  bool delivering_ = false;
  bool may_page_fault_ = false;  // an optional access met an unmapped page
  bool overflow_ = false;
  AccessSet set_;
};

// access_operands.cc: everything but descriptors. Adds what the operands of `instruction` touch.
Status touch_operands(AccessCollector& collector, const Instruction& instruction);
// access_segments.cc: far transfers, IRET, segment and table-register loads, the I/O permission bitmap.
Status touch_segments(AccessCollector& collector, const Instruction& instruction);

// What becomes of a descriptor.
enum class DescriptorUse : uint8_t {
  kLoad,     // into a segment register: the accessed bit is set if it is not
  kInspect,  // LAR, LSL, VERR, VERW, LLDT, gates: read only
  kTask,     // LTR: the busy bit is set
};
// Adds the descriptor that `selector` names. `low` gets its first 8 bytes; false when there is none to read
// (null selector, beyond the table, not readable yet).
bool touch_descriptor(AccessCollector& collector, uint16_t selector, DescriptorUse use, uint64_t& low);

}  // namespace reprise::x86
