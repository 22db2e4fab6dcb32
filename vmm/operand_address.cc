#include "vmm/operand_address.h"

#include "vmm/cpu_state.h"

namespace reprise::vmm {

OperandAddresses::OperandAddresses(const kvm_regs& regs, const kvm_sregs& sregs)
    : rip_(regs.rip), fs_base_(sregs.fs.base), gs_base_(sregs.gs.base) {
  const auto registers = general_registers(regs);  // in the order of Zydis' registers as well
  for (size_t i = 0; i < registers.size(); ++i) context_.values[ZYDIS_REGISTER_RAX + i] = registers[i];
}

std::optional<uint64_t> OperandAddresses::of(const ZydisDecodedInstruction& instruction,
                                             const ZydisDecodedOperand& operand) const {
  ZyanU64 address = 0;
  if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&instruction, &operand, rip_, &context_, &address)))
    return std::nullopt;
  if (operand.mem.segment == ZYDIS_REGISTER_FS) address += fs_base_;
  if (operand.mem.segment == ZYDIS_REGISTER_GS) address += gs_base_;
  return address;
}

}  // namespace reprise::vmm
