#include "vmm/guest/linux/linux_kernel.h"

#include <algorithm>
#include <array>

#include "vmm/guest/linux/linux.h"
#include "vmm/guest/linux/linux_segments.h"
#include "vmm/guest/linux/module_patch.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/exception_frame.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {
namespace {

// edx:eax of rdtsc, one count a nanosecond. KVM puts `data` into eax.
Status answer_time_stamp(std::span<uint8_t> data, bool with_vcpu, const ExitedVcpu& vcpu) {
  TRY_ASSIGN(const uint64_t now, vcpu.values.value(log::Source::kTime));
  std::copy_n(reinterpret_cast<const uint8_t*>(&now), std::min<size_t>(data.size(), 4), data.begin());
  TRY_ASSIGN(kvm_regs regs, vcpu.kvm.registers());
  regs.rdx = now >> 32;
  if (with_vcpu) regs.rcx = vcpu.id.raw;
  return vcpu.kvm.change_registers(regs);
}

// The kernel's general-protection handler begins. If it was user code's rdtsc that faulted (CR4.TSD is set),
// the instruction is carried out here and user code goes on; everything else is the kernel's own business.
Result<KernelRequest> answer_user_fault(const ExitedVcpu& vcpu) {
  constexpr uint64_t kUser = 3;
  TRY_ASSIGN(kvm_regs regs, vcpu.kvm.registers());
  TRY_ASSIGN(kvm_sregs sregs, vcpu.kvm.special_registers());
  const x86::LinearMemory memory(paging_of(sregs), vcpu.memory);
  const auto frame = x86::read_exception_frame(memory, Gva(regs.rsp));
  if (!frame.has_value() || (frame->cs & kUser) != kUser || frame->error != 0) return KernelRequest{};
  std::array<uint8_t, 3> code{};  // zeros where memory ends: a rdtsc there has two bytes
  (void)memory.read(Gva(frame->rip), code);
  const bool rdtsc = code[0] == 0x0f && code[1] == 0x31;
  const bool rdtscp = code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xf9;
  if (!rdtsc && !rdtscp) return KernelRequest{};
  TRY_ASSIGN(const uint64_t now, vcpu.values.value(log::Source::kTime));
  load_user_segments(sregs, frame->cs, frame->ss);
  regs.rip = frame->rip + (rdtsc ? 2 : 3);
  regs.rflags = frame->rflags;
  regs.rsp = frame->rsp;
  regs.rax = now & 0xffffffff;
  regs.rdx = now >> 32;
  if (rdtscp) regs.rcx = vcpu.id.raw;
  TRY(vcpu.kvm.set_special_registers(sregs));
  TRY(vcpu.kvm.change_registers(regs));
  return KernelRequest{KernelRequest::Kind::kTime};
}

}  // namespace

Result<KernelRequest> LinuxKernel::answer(uint16_t port, std::span<uint8_t> data,
                                          const ExitedVcpu& vcpu) const {
  using Kind = KernelRequest::Kind;
  switch (port) {
    case kRdtscPort:
    case kRdtscpPort:
      TRY(answer_time_stamp(data, port == kRdtscpPort, vcpu));
      return KernelRequest{Kind::kTime};
    case kPausePort:
      return KernelRequest{Kind::kPause};
    case kCr4Port:
      TRY(write_cr4(vcpu));
      return KernelRequest{};
    case kModulePort:
      return take_module(vcpu);
    default:
      return answer_user_fault(vcpu);
  }
}

Result<bool> LinuxKernel::is_tick(uint16_t port, const ExitedVcpu& vcpu) const {
  if (port != kTickPort || !patches_.clock.has_value()) return false;
  TRY_ASSIGN(const kvm_regs regs, vcpu.kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.kvm.special_registers());
  return x86::LinearMemory(paging_of(sregs), vcpu.memory).translate(Gva(regs.rip)) == patches_.clock->tick;
}

// As soon as the stub can reach the clock page, function entries count. What is in memory says whether they
// do, so going back to before leads to the same again.
Status LinuxKernel::settle(const ExitedVcpu& vcpu) const {
  if (!patches_.clock.has_value()) return {};
  const Gpa entry = patches_.clock->entry;
  const auto& jump = patches_.clock->jump;
  const uint8_t* const there = vcpu.memory.at(entry, jump.size());
  if (there == nullptr || std::ranges::equal(jump, std::span(there, jump.size()))) return {};
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.kvm.special_registers());
  const x86::LinearMemory memory(paging_of(sregs), vcpu.memory);
  if (memory.translate(kClockInDirectMap, {.write = true}) != kProgramClock) return {};
  std::ranges::copy(jump, vcpu.memory.writable(entry, jump.size()));
  return {};
}

Status LinuxKernel::write_cr4(const ExitedVcpu& vcpu) const {
  constexpr uint64_t kTimeStampDisable = 1 << 2;
  TRY_ASSIGN(const kvm_regs regs, vcpu.kvm.registers());
  TRY_ASSIGN(kvm_sregs sregs, vcpu.kvm.special_registers());
  const auto at = x86::LinearMemory(paging_of(sregs), vcpu.memory).translate(Gva(regs.rip));
  const auto site = at.has_value() ? patches_.cr4.find(at->raw) : patches_.cr4.end();
  if (site == patches_.cr4.end())
    return fail(ErrorCode::kGuest, "code writes CR4 that the kernel did not have when it was loaded");
  sregs.cr4 = general_registers(regs)[site->second] | kTimeStampDisable;
  if (!vcpu.kvm.set_special_registers(sregs))
    return fail(ErrorCode::kGuest, "CR4 cannot have the value {:#x}", sregs.cr4);
  return {};
}

// A module has been loaded, and its code is where it stays. The instructions that made room for this exit
// pushed registers.
Result<KernelRequest> LinuxKernel::take_module(const ExitedVcpu& vcpu) const {
  TRY_ASSIGN(kvm_regs regs, vcpu.kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.kvm.special_registers());
  const x86::LinearMemory memory(paging_of(sregs), vcpu.memory);
  const auto patched = patch_module(memory, vcpu.memory, Gva(regs.rdi), Gva(regs.rsi));
  if (!patched.has_value())
    return fail(ErrorCode::kGuest, "the kernel loads a module whose code is not in memory, or has no end");
  for (const uint8_t pushed : patches_.module_pushes) {
    const uint64_t value = general_registers(regs)[pushed];
    regs.rsp -= sizeof value;
    const auto at = memory.translate(Gva(regs.rsp), {.write = true});
    if (!at.has_value() || !vcpu.memory.write(*at, {reinterpret_cast<const uint8_t*>(&value), sizeof value}))
      return fail(ErrorCode::kGuest, "the kernel loads a module without a stack");
  }
  TRY(vcpu.kvm.change_registers(regs));
  return KernelRequest{KernelRequest::Kind::kModule, patched->rdtsc + patched->rdtscp + patched->pause};
}

}  // namespace reprise::vmm
