#include "x86/operand_address.h"

namespace reprise::x86 {

OperandAddresses::OperandAddresses(const CpuState& state)
    : rip_(state.rip), fs_base_(state.fs.base), gs_base_(state.gs.base) {
  const auto& registers = state.registers;  // in the order of Zydis' registers as well
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

}  // namespace reprise::x86
