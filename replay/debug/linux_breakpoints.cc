// Planted stops in a Linux guest.
#include <algorithm>
#include <array>

#include "replay/debug/software_breakpoints.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest/linux/linux_segments.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/exception_frame.h"
#include "x86/linear_memory.h"

namespace reprise::replay {
namespace {

constexpr size_t kTracerBytes = 5;  // Linux, arch/x86/include/asm/ftrace.h (MCOUNT_INSN_SIZE)
constexpr uint64_t kKernelHalf = 1ull << 63;
constexpr uint64_t kAlwaysSet = 1 << 1;  // Intel SDM vol. 1, figure 3-8

// Whether the kernel's tracer has, had, or will have the instruction there. The call goes to a function that
// only returns.
bool is_tracers(const x86::LinearMemory& memory, Gva address) {
  constexpr std::array<uint8_t, kTracerBytes> kNop = {0x0f, 0x1f, 0x44, 0x00, 0x00};
  constexpr uint8_t kCall = 0xe8, kReturn = 0xc3, kJump = 0xe9;
  std::array<uint8_t, kTracerBytes> code{};
  if (memory.read(address, code) < code.size()) return false;
  if (code == kNop) return true;
  if (code[0] != kCall) return false;
  int32_t offset = 0;
  std::copy_n(code.begin() + 1, sizeof offset, reinterpret_cast<uint8_t*>(&offset));
  if (offset == 0) return true;  // of a module that is being loaded, before it is relocated
  uint8_t target = 0;
  (void)memory.read(address + kTracerBytes + static_cast<uint64_t>(static_cast<int64_t>(offset)),
                    {&target, 1});
  return target == kReturn || target == kJump;  // a return that goes by a thunk
}

bool is_in_user_mode(Gva address) {
  return address.raw < kKernelHalf;
}

// What iretq takes from the stack.
struct ReturnFrame {
  uint64_t rip, cs, rflags, rsp, ss;
};

}  // namespace

Status SoftwareBreakpoints::check_linux() const {
  const bool user = std::ranges::any_of(addresses_, is_in_user_mode);
  if (!user || machine_.kernel()->exits_at_protection_faults()) return {};
  return fail(ErrorCode::kHost,
              "this kernel's general-protection handler is not one that Reprise knows, so breakpoints in "
              "user mode cannot be looked for");
}

// Where the addresses lead for this vCPU now.
Status SoftwareBreakpoints::plant_linux(VcpuId vcpu) {
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  bool user = false;
  for (const Gva address : addresses_) {
    user |= is_in_user_mode(address);
    const Gva place = is_tracers(memory, address) ? address + kTracerBytes : address;
    const auto at = memory.translate(place);
    if (!at.has_value()) continue;
    places_.emplace(place, address);
    put(vcpu, *at);
  }
  if (user)
    for (const uint64_t at : machine_.kernel()->returns_to_user()) put(vcpu, Gpa(at));
  return {};
}

// A return to user mode: carried out here, and then the bytes of that address space are put.
Result<bool> SoftwareBreakpoints::pass_return(VcpuId vcpu) {
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(kvm_regs regs, kvm.registers());
  TRY_ASSIGN(kvm_sregs sregs, kvm.special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  const auto at = memory.translate(Gva(regs.rip - 1));
  if (!at.has_value() ||
      std::ranges::find(machine_.kernel()->returns_to_user(), at->raw) ==
          machine_.kernel()->returns_to_user().end() ||
      planted_at(regs.rip - 1).has_value())
    return false;
  constexpr uint8_t kIretq = 0xcf;  // behind REX.W, over which the byte was put
  uint8_t opcode = 0;
  (void)memory.read(Gva(regs.rip), {&opcode, 1});
  if (opcode == kIretq) {
    ReturnFrame frame{};
    if (memory.read(Gva(regs.rsp), {reinterpret_cast<uint8_t*>(&frame), sizeof frame}) < sizeof frame)
      return fail(ErrorCode::kHost, "vCPU {} returns by iretq without a stack", vcpu.raw);
    if ((frame.cs & vmm::kUserPrivilege) == vmm::kUserPrivilege)
      vmm::load_user_segments(sregs, frame.cs, frame.ss);
    regs.rip = frame.rip;
    regs.rflags = frame.rflags | kAlwaysSet;
    regs.rsp = frame.rsp;
  } else {
    vmm::load_user_segments(sregs, vmm::kLinuxUserCode | vmm::kUserPrivilege,
                            vmm::kLinuxUserData | vmm::kUserPrivilege);
    regs.rip = regs.rcx;
    regs.rflags = regs.r11 | kAlwaysSet;
  }
  TRY(kvm.set_special_registers(sregs));
  TRY(kvm.set_registers(regs));
  TRY(plant_linux(vcpu));
  return true;
}

Result<std::optional<Gva>> SoftwareBreakpoints::find_linux(VcpuId vcpu, vmm::ExitKind exit) {
  std::optional<Gva> none;
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  if (const auto here = planted_at(regs.rip - 1); exit == vmm::ExitKind::kHalt && here.has_value())
    return here;
  if (exit == vmm::ExitKind::kPortIo && kvm.shared().io.port == vmm::kUserFaultPort) {
    TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
    const vmm::WholeMemory physical(machine_, vcpu);
    const auto frame =
        x86::read_exception_frame(x86::LinearMemory(vmm::paging_of(sregs), physical), Gva(regs.rsp))
            .value_or(x86::ExceptionFrame());
    const auto there = planted_at(frame.rip);
    if (there.has_value() && frame.error == 0 && (frame.cs & vmm::kUserPrivilege) == vmm::kUserPrivilege) {
      TRY(kvm.complete());  // nothing is left of the exit for who goes back from here
      return there;
    }
  }
  TRY(plant_linux(vcpu));
  return none;
}

}  // namespace reprise::replay
