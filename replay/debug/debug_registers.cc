#include "replay/debug/debug_registers.h"

#include <algorithm>
#include <cstring>

namespace reprise::replay {
namespace {

constexpr uint32_t kKernelGsBase = 0xc0000102;  // Intel SDM vol. 4, table 2-2
constexpr uint64_t kOsXsave = 1 << 18;          // in CR4
constexpr size_t kXstateBv = 512, kAvx = 576;   // Intel SDM vol. 1, 13.4.2 and 13.4.3
constexpr uint8_t kAvxInUse = 1 << 2;

}  // namespace

Result<Registers> read_registers(vmm::KvmVcpu& vcpu) {
  Registers registers;
  TRY_ASSIGN(registers.general, vcpu.registers());
  TRY_ASSIGN(registers.special, vcpu.special_registers());
  if (const auto base = vcpu.msr(kKernelGsBase)) registers.kernel_gs_base = *base;
  TRY_ASSIGN(const auto xsave, vcpu.xsave());
  std::copy_n(xsave.begin(), registers.fxsave.size(), registers.fxsave.begin());
  if ((registers.special.cr4 & kOsXsave) == 0) return registers;
  registers.ymm_high.emplace();
  std::memcpy(registers.ymm_high->data(), xsave.data() + kAvx, sizeof *registers.ymm_high);
  return registers;
}

Status write_registers(vmm::KvmVcpu& vcpu, const Registers& registers) {
  TRY_ASSIGN(auto state, vcpu.save({&kKernelGsBase, 1}));
  state.regs = registers.general;
  state.sregs = registers.special;
  for (auto& msr : state.msrs) msr.data = registers.kernel_gs_base;
  std::copy_n(registers.fxsave.begin(), registers.fxsave.size(), state.xsave.begin());
  if (registers.ymm_high.has_value()) {
    std::memcpy(state.xsave.data() + kAvx, registers.ymm_high->data(), sizeof *registers.ymm_high);
    state.xsave[kXstateBv] |= kAvxInUse;
  }
  return vcpu.restore(state);
}

}  // namespace reprise::replay
