#include "vmm/clock/spin.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <array>
#include <vector>

#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/linear_memory.h"
#include "x86/operand_address.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint32_t kLongestTurn = 64;  // instructions

constexpr size_t kLongestInstruction = 15;  // bytes
constexpr x86::LinearAccess kFetch{.fetch = true, .user = true};
constexpr x86::LinearAccess kRead{.user = true};

bool is_plain(const ZydisDecodedInstruction& instruction) {
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
      return instruction.mnemonic != ZYDIS_MNEMONIC_DIV &&
             instruction.mnemonic != ZYDIS_MNEMONIC_IDIV;  // they can fault
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_WIDENOP:
      return true;
    default:
      return instruction.mnemonic == ZYDIS_MNEMONIC_PAUSE || instruction.mnemonic == ZYDIS_MNEMONIC_LEA;
  }
}

// Whether the instruction at rip reads at most, and only general registers and mapped memory.
bool is_harmless(const ZydisDecoder& decoder, const x86::LinearMemory& memory, const kvm_sregs& sregs,
                 const kvm_regs& regs) {
  std::array<uint8_t, kLongestInstruction> code{};
  const size_t bytes = memory.read(Gva(regs.rip), code, kFetch);
  ZydisDecodedInstruction instruction;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code.data(), bytes, &instruction, operands.data())))
    return false;
  if (!is_plain(instruction)) return false;
  const x86::OperandAddresses addresses(cpu_state(regs, sregs));
  for (size_t i = 0; i < instruction.operand_count; ++i) {
    const ZydisDecodedOperand& operand = operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      switch (ZydisRegisterGetClass(operand.reg.value)) {
        case ZYDIS_REGCLASS_GPR8:
        case ZYDIS_REGCLASS_GPR16:
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
        case ZYDIS_REGCLASS_FLAGS:
        case ZYDIS_REGCLASS_IP:
          break;
        default:
          return false;
      }
    }
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN) continue;
    if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0)
      return false;
    const auto address = addresses.of(instruction, operand);
    if (!address.has_value()) return false;
    const uint64_t last = *address + std::max(1, operand.size / 8) - 1;
    if (!memory.translate(Gva(*address), kRead).has_value() ||
        !memory.translate(Gva(last), kRead).has_value())
      return false;
  }
  return true;
}

// Steps over instructions that are harmless.
class Stepper {
 public:
  Stepper(KvmVcpu& vcpu, const x86::PhysicalReader& memory, const kvm_sregs& sregs)
      : vcpu_(vcpu), sregs_(sregs), memory_(paging_of(sregs), memory) {
    ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  }

  // The registers after the next instruction; none if it must not be stepped over.
  Result<std::optional<kvm_regs>> step(const kvm_regs& regs) {
    if (!is_harmless(decoder_, memory_, sregs_, regs)) return std::optional<kvm_regs>();
    TRY(vcpu_.step());
    TRY_ASSIGN(const kvm_regs after, vcpu_.registers());
    return std::optional(after);
  }

 private:
  KvmVcpu& vcpu_;
  const kvm_sregs sregs_;
  x86::LinearMemory memory_;
  ZydisDecoder decoder_{};
};

uint64_t digest_of(kvm_regs regs) {
  regs.rflags &= ~x86::kTraceFlag;
  return digest_registers(regs, 0);
}

bool at_user_64(const kvm_sregs& sregs) {
  return (sregs.cs.selector & 3) == 3 && sregs.cs.l != 0;
}

}  // namespace

Result<std::optional<log::Spin>> find_spin(KvmVcpu& vcpu, const x86::PhysicalReader& memory) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (!at_user_64(sregs)) return std::optional<log::Spin>();
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
  if (!at_user_64(sregs)) return false;
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
