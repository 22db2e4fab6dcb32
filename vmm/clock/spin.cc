#include "vmm/clock/spin.h"

#include <algorithm>
#include <vector>

#include "vmm/clock/user_state.h"
#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/instruction.h"
#include "x86/linear_memory.h"
#include "x86/operand_address.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint32_t kLongestTurn = 64;  // instructions

constexpr x86::LinearAccess kRead{.user = true};

// Whether the operand is in general registers, or read from memory that is mapped.
bool is_harmless(const x86::LinearMemory& memory, const x86::CpuState& state,
                 const x86::Instruction& instruction, const ZydisDecodedOperand& operand) {
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) return x86::is_general_register(operand);
  if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN) return true;
  if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0)
    return false;
  const auto address = x86::operand_address(state, instruction, operand);
  if (!address.has_value()) return false;
  const Gva last(address->raw + std::max(1, operand.size / 8) - 1);
  return memory.translate(*address, kRead).has_value() && memory.translate(last, kRead).has_value();
}

// Whether the instruction at rip reads at most, and only general registers and mapped memory.
bool is_harmless(const x86::LinearMemory& memory, const x86::CpuState& state) {
  x86::Instruction instruction;
  if (!x86::fetch(state, memory, instruction)) return false;
  if (!instruction.only_computes() && instruction.mnemonic() != ZYDIS_MNEMONIC_PAUSE) return false;
  return std::ranges::all_of(instruction.operands(), [&](const auto& operand) {
    return is_harmless(memory, state, instruction, operand);
  });
}

// Steps over instructions that are harmless.
class Stepper {
 public:
  Stepper(KvmVcpu& vcpu, const x86::PhysicalReader& memory, const kvm_sregs& sregs)
      : vcpu_(vcpu), sregs_(sregs), memory_(paging_of(sregs), memory) {}

  // The registers after the next instruction; none if it must not be stepped over.
  Result<std::optional<kvm_regs>> step(const kvm_regs& regs) {
    if (!is_harmless(memory_, cpu_state(regs, sregs_))) return std::optional<kvm_regs>();
    TRY_ASSIGN(const ExitKind exit, vcpu_.try_step());
    if (exit == ExitKind::kInterrupted) return std::optional<kvm_regs>();  // the vCPU is told to stop
    if (exit != ExitKind::kDebug)
      return fail(ErrorCode::kHost, "a single step ended in another way (KVM exit reason {})",
                  vcpu_.shared().exit_reason);
    TRY_ASSIGN(const kvm_regs after, vcpu_.registers());
    return std::optional(after);
  }

 private:
  KvmVcpu& vcpu_;
  const kvm_sregs sregs_;
  x86::LinearMemory memory_;
};

uint64_t digest_of(kvm_regs regs) {
  regs.rflags &= ~x86::kTraceFlag;
  return digest_registers(regs, 0);
}

}  // namespace

Result<std::optional<log::Spin>> find_spin(KvmVcpu& vcpu, const x86::PhysicalReader& memory) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!is_user_64(sregs)) return std::optional<log::Spin>();
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  std::vector<uint64_t> seen = {digest_of(regs)};
  Stepper stepper(vcpu, memory, sregs);
  while (seen.size() <= kLongestTurn) {
    TRY_ASSIGN(const auto after, stepper.step(regs));
    if (!after.has_value()) return std::optional<log::Spin>();
    regs = *after;
    const uint64_t digest = digest_of(regs);
    const auto again = std::find(seen.begin(), seen.end(), digest);
    if (again != seen.end())
      return std::optional(log::Spin{digest, static_cast<uint32_t>(seen.end() - again)});
    seen.push_back(digest);
  }
  return std::optional<log::Spin>();
}

Result<bool> step_into_spin(KvmVcpu& vcpu, const x86::PhysicalReader& memory, const log::Spin& spin) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!is_user_64(sregs)) return false;
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  Stepper stepper(vcpu, memory, sregs);
  // Twice round: a loop may be entered at an instruction that single-steps jump over (an emulator's pause
  // takes the next one along).
  for (uint32_t left = 2 * std::min(spin.period, kLongestTurn) + 2; digest_of(regs) != spin.registers;
       --left) {
    if (left == 0) return false;
    TRY_ASSIGN(const auto after, stepper.step(regs));
    if (!after.has_value()) return false;
    regs = *after;
  }
  return true;
}

}  // namespace reprise::vmm
