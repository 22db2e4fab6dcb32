#include "vmm/guest/linux/user_return.h"

#include "vmm/guest/linux/linux_segments.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kIretq = 0xcf;         // behind REX.W
constexpr uint64_t kAlwaysSet = 1 << 1;  // Intel SDM vol. 1, figure 3-8

// What iretq takes from the stack.
struct ReturnFrame {
  uint64_t rip, cs, rflags, rsp, ss;
};

}  // namespace

Status carry_out_return(KvmVcpu& vcpu, const x86::LinearMemory& memory) {
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  TRY_ASSIGN(kvm_sregs sregs, vcpu.special_registers());
  uint8_t opcode = 0;
  (void)memory.read(Gva(regs.rip), {&opcode, 1});
  if (opcode == kIretq) {
    ReturnFrame frame{};
    if (memory.read(Gva(regs.rsp), {reinterpret_cast<uint8_t*>(&frame), sizeof frame}) < sizeof frame)
      return fail(ErrorCode::kHost, "the kernel returns by iretq without a stack, at {:#x}", regs.rip);
    if ((frame.cs & kUserPrivilege) == kUserPrivilege) load_user_segments(sregs, frame.cs, frame.ss);
    regs.rip = frame.rip;
    regs.rflags = frame.rflags | kAlwaysSet;
    regs.rsp = frame.rsp;
  } else {
    load_user_segments(sregs, kLinuxUserCode | kUserPrivilege, kLinuxUserData | kUserPrivilege);
    regs.rip = regs.rcx;
    regs.rflags = regs.r11 | kAlwaysSet;
  }
  TRY(vcpu.set_special_registers(sregs));
  return vcpu.set_registers(regs);
}

Status undo_exception(KvmVcpu& vcpu, const x86::ExceptionFrame& frame) {
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  TRY_ASSIGN(kvm_sregs sregs, vcpu.special_registers());
  load_user_segments(sregs, frame.cs, frame.ss);
  regs.rip = frame.rip;
  regs.rflags = frame.rflags & ~x86::kResumeFlag;
  regs.rsp = frame.rsp;
  TRY(vcpu.set_special_registers(sregs));
  return vcpu.set_registers(regs);
}

}  // namespace reprise::vmm
