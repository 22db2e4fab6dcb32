#include "vmm/debug/single_step.h"

#include <Zydis/Zydis.h>

#include <array>

#include "vmm/host_profile.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kTraceFlag = 1 << 8, kResumeFlag = 1 << 16;  // Intel SDM vol. 1, 3.4.3
constexpr uint8_t kDebugVector = 1;
constexpr uint64_t kMostRepetitions =
    64;  // 2 ms where a step is slow; with as many steps as a memset has bytes nobody could go on
constexpr size_t kLongestInstruction = 15;  // bytes

bool is_traced_exactly(const ZydisDecodedInstruction& instruction) {
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
      return false;
    default:
      break;
  }
  switch (instruction.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
      return false;
    default:
      return true;
  }
}

// Traps are held back for one instruction after it.
bool loads_ss(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.reg.value == ZYDIS_REGISTER_SS &&
         (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

Status forget_trace(KvmVcpu& vcpu) {
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  if ((regs.rflags & (kTraceFlag | kResumeFlag)) == 0) return {};
  regs.rflags &= ~(kTraceFlag | kResumeFlag);
  return vcpu.set_registers(regs);
}

// Software KVM, user mode.
Result<bool> step_without_idt(KvmVcpu& vcpu, const kvm_sregs& sregs) {
  TRY_ASSIGN(kvm_regs regs, vcpu.registers());
  kvm_sregs bare = sregs;
  bare.idt.limit = 0;
  TRY(vcpu.set_special_registers(bare));
  regs.rflags |= kTraceFlag;
  TRY(vcpu.set_registers(regs));
  std::optional<uint8_t> vector;
  ExitKind exit = ExitKind::kInterrupted;
  while (exit == ExitKind::kInterrupted && !vector.has_value()) {
    TRY_ASSIGN(exit, vcpu.run());
    TRY_ASSIGN(const kvm_vcpu_events events, vcpu.events());
    // After the shutdown the exception is neither pending nor injected any more; its number is left.
    if (exit == ExitKind::kShutdown || events.exception.injected != 0 || events.exception.pending != 0)
      vector = events.exception.nr;
  }
  TRY_ASSIGN(kvm_vcpu_events events, vcpu.events());
  events.exception = {};
  TRY(vcpu.set_events(events));
  TRY_ASSIGN(kvm_sregs after, vcpu.special_registers());
  after.idt = sregs.idt;
  after.cr2 = sregs.cr2;
  TRY(vcpu.set_special_registers(after));
  TRY(forget_trace(vcpu));
  if (!vector.has_value())
    return fail(ErrorCode::kHost, "a single step ended in another way (KVM exit reason {})",
                vcpu.shared().exit_reason);
  return *vector == kDebugVector;
}

}  // namespace

bool can_step_over(const LinearMemory& memory, const kvm_regs& regs) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  std::array<uint8_t, kLongestInstruction> code{};
  const size_t bytes = memory.read(Gva(regs.rip), code, {.fetch = true});
  ZydisDecodedInstruction instruction;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code.data(), bytes, &instruction, operands.data())))
    return false;
  for (size_t i = 0; i < instruction.operand_count; ++i)
    if (loads_ss(operands[i])) return false;
  constexpr ZydisInstructionAttributes kRepeated =
      ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
  if ((instruction.attributes & kRepeated) != 0 && regs.rcx > kMostRepetitions) return false;
  return is_traced_exactly(instruction);
}

Result<bool> single_step(KvmVcpu& vcpu) {
  static const bool nested = has_nested_paging();
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  if (sregs.cs.l == 0) return false;
  if (!nested && (sregs.cs.selector & 3) == 3) return step_without_idt(vcpu, sregs);
  TRY(vcpu.step());
  TRY(forget_trace(vcpu));
  return true;
}

}  // namespace reprise::vmm
