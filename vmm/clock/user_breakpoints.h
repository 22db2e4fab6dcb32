// Breakpoints in the code of a Linux guest's user mode that leave no trace in what is recorded.
//
// Each is a HLT over code, which in user mode is a general-protection fault; the kernel's handler of those
// exits first (vmm/guest/linux/kernel_patch.h), and the vCPU is put back to where it was. The bytes are there
// only while the vCPU executes user mode: they are put where it is entered there, and taken out at whatever
// exit comes next. The kernel, whose first function entry is one, and other vCPUs, which execute when this
// one has given up the turn, never see them; nor does a fork, an exec, or who maps the page elsewhere. The
// program itself would see them in its own code (vmm/clock/likely_rare.h).
#pragma once

#include <array>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest/guest_kernel.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"
#include "x86/exception_frame.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread; no other vCPU of the machine may execute meanwhile.
class UserBreakpoints {
 public:
  // Requires: the kernel ticks, and exits at protection faults. All outlive this.
  UserBreakpoints(KvmVcpu& kvm, const ViewMemory& memory, const GuestKernel& kernel)
      : kvm_(kvm), memory_(memory), kernel_(kernel) {}

  enum class When {
    kNow,        // if the vCPU is in user mode
    kAlsoLater,  // if it is in the kernel, it exits where it returns to user mode
  };
  // The vCPU is entered now. Addresses that its page tables do not map are passed over. Errors: kHost.
  Status put(std::span<const Gva> addresses, When when);
  [[nodiscard]] bool are_put() const { return !bytes_.empty(); }
  // Whether they are in user mode's code, and not where the kernel returns to it.
  [[nodiscard]] bool are_in_user_mode() const { return are_put() && frame_.has_value(); }
  // It has exited.
  void take_out();

  struct Elsewhere {};  // the exit is about something else
  struct Returned {};   // the vCPU has come to user mode
  using Hit = std::variant<Elsewhere, Returned, Gva>;
  // After take_out(): what the exit was; the vCPU stands there then, as if it had come there by itself.
  // Errors: kHost.
  Result<Hit> find(ExitKind exit);

 private:
  void put(Gpa at);
  bool keep_frame(const kvm_sregs& sregs);
  Result<Hit> find_return();

  KvmVcpu& kvm_;
  const ViewMemory& memory_;
  const GuestKernel& kernel_;
  std::vector<std::pair<uint8_t*, uint8_t>> bytes_;  // what was there
  std::vector<Gva> addresses_;
  // Where the fault pushes its frame, and what was there.
  std::optional<Gva> frame_;
  uint8_t* frame_bytes_ = nullptr;
  std::array<uint8_t, sizeof(x86::ExceptionFrame)> under_frame_{};
};

}  // namespace reprise::vmm
