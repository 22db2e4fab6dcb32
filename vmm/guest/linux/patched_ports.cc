#include "vmm/guest/linux/patched_ports.h"

#include <algorithm>
#include <array>

#include "vmm/guest/linux/linux_segments.h"
#include "vmm/guest/linux/module_patch.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/exception_frame.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

Status PatchedPorts::answer(uint16_t port, std::span<uint8_t> data) {
  switch (port) {
    case kRdtscPort:
      return answer_time_stamp(data, false);
    case kRdtscpPort:
      return answer_time_stamp(data, true);
    case kPausePort:
      ++context_.statistics().pauses;
      context_.journal().yield();
      return {};
    case kCr4Port:
      return write_cr4();
    case kModulePort:
      return take_module();
    default:
      return answer_user_fault();
  }
}

Status PatchedPorts::write_cr4() {
  constexpr uint64_t kTimeStampDisable = 1 << 2;
  TRY_ASSIGN(const kvm_regs regs, context_.kvm().registers());
  TRY_ASSIGN(kvm_sregs sregs, context_.kvm().special_registers());
  const auto at = x86::LinearMemory(paging_of(sregs), context_.memory()).translate(Gva(regs.rip));
  const auto site =
      at.has_value() ? context_.parts().patches->cr4.find(at->raw) : context_.parts().patches->cr4.end();
  if (site == context_.parts().patches->cr4.end())
    return context_.guest_error("code writes CR4 that the kernel did not have when it was loaded");
  sregs.cr4 = general_registers(regs)[site->second] | kTimeStampDisable;
  if (const Status set = context_.kvm().set_special_registers(sregs); !set)
    return context_.guest_error(fmt::format("CR4 cannot have the value {:#x}", sregs.cr4));
  return {};
}

// edx:eax of rdtsc, one count a nanosecond. KVM puts `data` into eax.
Status PatchedPorts::answer_time_stamp(std::span<uint8_t> data, bool with_vcpu) {
  ++context_.statistics().times;
  TRY_ASSIGN(const uint64_t now, context_.journal().value(log::Source::kTime));
  std::copy_n(reinterpret_cast<const uint8_t*>(&now), std::min<size_t>(data.size(), 4), data.begin());
  TRY_ASSIGN(kvm_regs regs, context_.kvm().registers());
  regs.rdx = now >> 32;
  if (with_vcpu) regs.rcx = context_.parts().id.raw;
  return context_.kvm().change_registers(regs);
}

// The kernel's general-protection handler begins. If it was user code's rdtsc that faulted (CR4.TSD is set),
// the instruction is carried out here and user code goes on; everything else is the kernel's own business.
Status PatchedPorts::answer_user_fault() {
  constexpr uint64_t kUser = 3;
  TRY_ASSIGN(kvm_regs regs, context_.kvm().registers());
  TRY_ASSIGN(kvm_sregs sregs, context_.kvm().special_registers());
  const x86::LinearMemory memory(paging_of(sregs), context_.memory());
  const auto frame = x86::read_exception_frame(memory, Gva(regs.rsp));
  if (!frame.has_value() || (frame->cs & kUser) != kUser || frame->error != 0) return {};
  std::array<uint8_t, 3> code{};  // zeros where memory ends: a rdtsc there has two bytes
  (void)memory.read(Gva(frame->rip), code);
  const bool rdtsc = code[0] == 0x0f && code[1] == 0x31;
  const bool rdtscp = code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xf9;
  if (!rdtsc && !rdtscp) return {};
  ++context_.statistics().times;
  TRY_ASSIGN(const uint64_t now, context_.journal().value(log::Source::kTime));
  load_user_segments(sregs, frame->cs, frame->ss);
  regs.rip = frame->rip + (rdtsc ? 2 : 3);
  regs.rflags = frame->rflags;
  regs.rsp = frame->rsp;
  regs.rax = now & 0xffffffff;
  regs.rdx = now >> 32;
  if (rdtscp) regs.rcx = context_.parts().id.raw;
  TRY(context_.kvm().set_special_registers(sregs));
  return context_.kvm().change_registers(regs);
}

// A module has been loaded, and its code is where it stays. The instructions that made room for this stop
// pushed registers.
Status PatchedPorts::take_module() {
  TRY_ASSIGN(kvm_regs regs, context_.kvm().registers());
  TRY_ASSIGN(const kvm_sregs sregs, context_.kvm().special_registers());
  const x86::LinearMemory memory(paging_of(sregs), context_.memory());
  const auto patched = patch_module(memory, context_.memory(), Gva(regs.rdi), Gva(regs.rsi));
  if (!patched.has_value())
    return context_.guest_error("the kernel loads a module whose code is not in memory, or has no end");
  ++context_.statistics().modules;
  context_.statistics().module_patches += patched->rdtsc + patched->rdtscp + patched->pause;
  for (const uint8_t pushed : context_.parts().patches->module_pushes) {
    const uint64_t value = general_registers(regs)[pushed];
    regs.rsp -= sizeof value;
    const auto at = memory.translate(Gva(regs.rsp), {.write = true});
    if (!at.has_value() ||
        !context_.memory().write(*at, {reinterpret_cast<const uint8_t*>(&value), sizeof value}))
      return context_.guest_error("the kernel loads a module without a stack");
  }
  return context_.kvm().change_registers(regs);
}

}  // namespace reprise::vmm
