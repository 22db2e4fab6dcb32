#include "vmm/vcpu/first_registers.h"

#include "vmm/device/irq/local_apic.h"

namespace reprise::vmm {
namespace {

kvm_segment to_kvm(const SegmentRegister& from) {
  kvm_segment segment{};
  segment.base = from.base;
  segment.limit = from.limit;
  segment.selector = from.selector;
  segment.type = from.type;
  segment.present = 1;
  segment.s = from.code_or_data ? 1 : 0;
  segment.db = from.is_32_bit ? 1 : 0;
  segment.g = from.granular ? 1 : 0;
  segment.l = from.is_64_bit ? 1 : 0;
  return segment;
}

// Registers that no boot protocol mentions and every vCPU starts with. Source: Intel SDM vol. 3, table 9-1.
kvm_sregs initial_sregs(VcpuId id) {
  kvm_sregs sregs{};
  sregs.cr0 = 0x60000010;  // CD, NW, ET
  sregs.apic_base = kLocalApicBase | 0x800 | (id.raw == 0 ? 0x100 : 0);
  sregs.gdt.limit = 0xffff;
  sregs.idt.limit = 0xffff;
  kvm_segment data{};
  data.limit = 0xffff;
  data.type = 3;
  data.present = 1;
  data.s = 1;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cs = data;
  sregs.cs.type = 11;
  sregs.tr.limit = 0xffff;
  sregs.tr.type = 11;
  sregs.tr.present = 1;
  sregs.ldt.limit = 0xffff;
  sregs.ldt.type = 2;
  sregs.ldt.present = 1;
  return sregs;
}

}  // namespace

Status set_boot_registers(KvmVcpu& kvm, VcpuId id, const BootState& state) {
  kvm_sregs sregs = initial_sregs(id);
  sregs.cr0 = state.cr0;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
  sregs.cs = to_kvm(state.code);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = to_kvm(state.data);
  sregs.tr = to_kvm(state.task);
  sregs.gdt.base = state.gdt.raw;
  sregs.gdt.limit = state.gdt_limit;
  kvm_regs regs{};
  regs.rip = state.entry.raw;
  regs.rbx = state.rbx;
  regs.rsi = state.rsi;
  regs.rflags = state.rflags | 2;
  TRY(kvm.set_special_registers(sregs));
  return kvm.set_registers(regs);
}

Status set_startup_registers(KvmVcpu& kvm, VcpuId id, uint8_t vector) {
  kvm_sregs sregs = initial_sregs(id);
  sregs.cs.selector = static_cast<uint16_t>(vector << 8);
  sregs.cs.base = static_cast<uint64_t>(vector) << kPageShift;
  kvm_regs regs{};
  regs.rflags = 2;
  TRY(kvm.set_special_registers(sregs));
  return kvm.set_registers(regs);
}

}  // namespace reprise::vmm
