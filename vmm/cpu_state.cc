#include "vmm/cpu_state.h"

namespace reprise::vmm {
namespace {

ept::Segment to_ept(const kvm_segment& from) {
  ept::Segment segment;
  segment.selector = from.selector;
  segment.base = from.base;
  segment.limit = from.limit;
  segment.long_mode = from.l != 0;
  segment.default_32 = from.db != 0;
  return segment;
}

}  // namespace

std::array<uint64_t, 16> general_registers(const kvm_regs& regs) {
  return {regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
          regs.r8,  regs.r9,  regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15};
}

ept::CpuState cpu_state(const kvm_regs& regs, const kvm_sregs& sregs) {
  ept::CpuState state;
  state.registers = general_registers(regs);
  state.rip = regs.rip;
  state.rflags = regs.rflags;
  state.cs = to_ept(sregs.cs);
  state.ss = to_ept(sregs.ss);
  state.ds = to_ept(sregs.ds);
  state.es = to_ept(sregs.es);
  state.fs = to_ept(sregs.fs);
  state.gs = to_ept(sregs.gs);
  state.tr = to_ept(sregs.tr);
  state.ldt = to_ept(sregs.ldt);
  state.cr0 = sregs.cr0;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.efer = sregs.efer;
  state.gdt = {sregs.gdt.base, sregs.gdt.limit};
  state.idt = {sregs.idt.base, sregs.idt.limit};
  state.cpl = sregs.ss.dpl;
  return state;
}

}  // namespace reprise::vmm
