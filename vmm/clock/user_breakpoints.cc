#include "vmm/clock/user_breakpoints.h"

#include <algorithm>

#include "vmm/clock/user_state.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest/linux/linux_segments.h"
#include "vmm/guest/linux/user_return.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kHaltByte = 0xf4;
constexpr uint64_t kStackInTss = 4;       // RSP0; Intel SDM vol. 3, figure 8-11
constexpr uint64_t kStackAlignment = 16;  // 6.14.2

// A HLT of the guest's own, or a debugger's (replay/debug/software_breakpoints.h), who has it then.
bool is_halt(const x86::LinearMemory& memory, uint64_t rip) {
  uint8_t code = 0;
  return memory.read(Gva(rip), {&code, 1}) == 1 && code == kHaltByte;
}

}  // namespace

void UserBreakpoints::put(Gpa at) {
  uint8_t* const byte = memory_.writable(at, 1);
  if (byte == nullptr) return;
  bytes_.emplace_back(byte, *byte);
  *byte = kHaltByte;
}

// In the reverse order, should two be one.
void UserBreakpoints::take_out() {
  for (; !bytes_.empty(); bytes_.pop_back()) *bytes_.back().first = bytes_.back().second;
}

// What the delivery of a fault changes. False: its place cannot be found.
bool UserBreakpoints::keep_frame(const kvm_sregs& sregs) {
  const x86::LinearMemory memory(paging_of(sregs), memory_);
  uint64_t stack = 0;
  if (memory.read(Gva(sregs.tr.base + kStackInTss), {reinterpret_cast<uint8_t*>(&stack), sizeof stack}) <
      sizeof stack)
    return false;
  frame_ = Gva((stack & ~(kStackAlignment - 1)) - under_frame_.size());
  const auto at = memory.translate(*frame_);
  frame_bytes_ = at.has_value() ? memory_.writable(*at, under_frame_.size()) : nullptr;
  if (frame_bytes_ == nullptr) return false;
  std::copy_n(frame_bytes_, under_frame_.size(), under_frame_.begin());
  return true;
}

Status UserBreakpoints::put(std::span<const Gva> addresses, When when) {
  frame_.reset();
  TRY_ASSIGN(const kvm_sregs sregs, kvm_.special_registers());
  if (!is_user_64(sregs)) {
    if (when == When::kAlsoLater)
      for (const uint64_t at : kernel_.returns_to_user()) put(Gpa(at));
    return {};
  }
  if (!keep_frame(sregs)) return {};
  addresses_.assign(addresses.begin(), addresses.end());
  const x86::LinearMemory memory(paging_of(sregs), memory_);
  for (const Gva address : addresses)
    if (const auto at = memory.translate(address, {.fetch = true, .user = true})) put(*at);
  return {};
}

Result<UserBreakpoints::Hit> UserBreakpoints::find(ExitKind exit) {
  if (!frame_.has_value()) return exit == ExitKind::kHalt ? find_return() : Hit(Elsewhere{});
  // The handler exits by its first instruction, unless something else made the vCPU exit in front of it.
  const bool exits_by_itself = exit == ExitKind::kPortIo;
  if (exits_by_itself ? kvm_.shared().io.port != kUserFaultPort
                      : exit != ExitKind::kInterrupted && exit != ExitKind::kFault)
    return Hit(Elsewhere{});
  TRY_ASSIGN(const kvm_regs regs, kvm_.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm_.special_registers());
  if (Gva(regs.rsp) != *frame_ || is_user_64(sregs)) return Hit(Elsewhere{});
  const x86::LinearMemory memory(paging_of(sregs), memory_);
  const auto frame = x86::read_exception_frame(memory, *frame_);
  if (!frame.has_value() || frame->error != 0 || (frame->cs & kUserPrivilege) != kUserPrivilege ||
      std::ranges::find(addresses_, Gva(frame->rip)) == addresses_.end())
    return Hit(Elsewhere{});
  if (is_halt(memory, frame->rip)) return Hit(Elsewhere{});
  if (exits_by_itself) TRY(kvm_.complete());
  std::ranges::copy(under_frame_, frame_bytes_);
  TRY(undo_exception(kvm_, *frame));
  return Hit(Gva(frame->rip));
}

// HLT is where it leads to.
Result<UserBreakpoints::Hit> UserBreakpoints::find_return() {
  TRY_ASSIGN(const kvm_regs regs, kvm_.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm_.special_registers());
  const x86::LinearMemory memory(paging_of(sregs), memory_);
  const auto at = memory.translate(Gva(regs.rip - 1));
  const auto returns = kernel_.returns_to_user();
  if (!at.has_value() || std::ranges::find(returns, at->raw) == returns.end() ||
      is_halt(memory, regs.rip - 1))
    return Hit(Elsewhere{});
  TRY(carry_out_return(kvm_, memory));
  return Hit(Returned{});
}

}  // namespace reprise::vmm
