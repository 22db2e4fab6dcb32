#include "vmm/kvm/cpu_state.h"

#include "vmm/host/processor.h"

namespace reprise::vmm {
namespace {

x86::Segment segment_of(const kvm_segment& from) {
  x86::Segment segment;
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

x86::PagingState paging_of(const kvm_sregs& sregs) {
  return {.cr0 = sregs.cr0, .cr3 = sregs.cr3, .cr4 = sregs.cr4, .efer = sregs.efer};
}

x86::CpuState cpu_state(const kvm_regs& regs, const kvm_sregs& sregs) {
  x86::CpuState state;
  state.registers = general_registers(regs);
  state.rip = regs.rip;
  state.rflags = regs.rflags;
  state.cs = segment_of(sregs.cs);
  state.ss = segment_of(sregs.ss);
  state.ds = segment_of(sregs.ds);
  state.es = segment_of(sregs.es);
  state.fs = segment_of(sregs.fs);
  state.gs = segment_of(sregs.gs);
  state.tr = segment_of(sregs.tr);
  state.ldt = segment_of(sregs.ldt);
  state.cr0 = sregs.cr0;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.efer = sregs.efer;
  state.gdt = {sregs.gdt.base, sregs.gdt.limit};
  state.idt = {sregs.idt.base, sregs.idt.limit};
  state.cpl = sregs.ss.dpl;
  state.vendor = processor_vendor(state.cpl);
  return state;
}

}  // namespace reprise::vmm
