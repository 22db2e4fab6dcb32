#include "vmm/step/step_plan.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/host/host_profile.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/operand_address.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kCr0NoCoprocessor = 1 << 2 | 1 << 3;  // EM, TS: Intel SDM vol. 3, 2.5
constexpr uint32_t kLongTargetMsr = 0xc0000082;          // LSTAR: Intel SDM vol. 4
constexpr size_t kLongestInstruction = 15;               // bytes
// Of a string instruction outside 64-bit mode, which is traced: 2 ms where a step is slow.
constexpr uint64_t kMostTraced = 64;

struct Decoded {
  ZydisDecodedInstruction instruction;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> all;
  [[nodiscard]] std::span<const ZydisDecodedOperand> operands() const {
    return std::span(all).first(instruction.operand_count);
  }
};

bool in_64bit(const kvm_sregs& sregs) {
  return (sregs.efer & x86::kEferLongModeActive) != 0 && sregs.cs.l != 0;
}

ZydisDecoder decoder_for(const kvm_sregs& sregs) {
  ZydisDecoder decoder;
  ZydisMachineMode mode = ZYDIS_MACHINE_MODE_REAL_16;
  if (in_64bit(sregs))
    mode = ZYDIS_MACHINE_MODE_LONG_64;
  else if ((sregs.efer & x86::kEferLongModeActive) != 0)
    mode = sregs.cs.db != 0 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
  else if ((sregs.cr0 & x86::kCr0ProtectionEnable) != 0)
    mode = sregs.cs.db != 0 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LEGACY_16;
  const ZydisStackWidth stack = in_64bit(sregs)    ? ZYDIS_STACK_WIDTH_64
                                : sregs.ss.db != 0 ? ZYDIS_STACK_WIDTH_32
                                                   : ZYDIS_STACK_WIDTH_16;
  ZydisDecoderInit(&decoder, mode, stack);
  return decoder;
}

Gva code_address(const kvm_sregs& sregs, uint64_t rip) {
  return in_64bit(sregs) ? Gva(rip) : Gva((sregs.cs.base + rip) & 0xffff'ffff);
}

bool loads_segment(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
         (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 &&
         ZydisRegisterGetClass(operand.reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

// Whether no operand is one of an instruction that can raise more than its address: x87's pending exceptions,
// an XMM operand's alignment.
bool operands_are_plain(const Decoded& decoded, const kvm_regs& regs, const kvm_sregs& sregs) {
  bool wide = false;
  for (const auto& operand : decoded.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    switch (ZydisRegisterGetClass(operand.reg.value)) {
      case ZYDIS_REGCLASS_GPR8:
      case ZYDIS_REGCLASS_GPR16:
      case ZYDIS_REGCLASS_GPR32:
      case ZYDIS_REGCLASS_GPR64:
      case ZYDIS_REGCLASS_FLAGS:
      case ZYDIS_REGCLASS_IP:
        break;
      case ZYDIS_REGCLASS_XMM:
      case ZYDIS_REGCLASS_YMM:
        wide = true;
        break;
      case ZYDIS_REGCLASS_SEGMENT:  // read; or the code segment of a branch
        if (loads_segment(operand) && operand.reg.value != ZYDIS_REGISTER_CS) return false;
        break;
      default:
        return false;
    }
  }
  if (!wide) return true;
  if ((sregs.cr0 & kCr0NoCoprocessor) != 0) return false;
  const x86::OperandAddresses addresses(cpu_state(regs, sregs));
  for (const auto& operand : decoded.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || operand.mem.segment == ZYDIS_REGISTER_FS ||
        operand.mem.segment == ZYDIS_REGISTER_GS)
      return false;
    const auto address = addresses.of(decoded.instruction, operand);
    if (!address.has_value() || *address % static_cast<uint64_t>(std::max(1, operand.size / 8)) != 0)
      return false;
  }
  return true;
}

bool is_plain(const ZydisDecodedInstruction& instruction) {
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
      return instruction.mnemonic != ZYDIS_MNEMONIC_DIV && instruction.mnemonic != ZYDIS_MNEMONIC_IDIV;
    case ZYDIS_CATEGORY_SEMAPHORE:
      return instruction.mnemonic != ZYDIS_MNEMONIC_CMPXCHG16B;
    case ZYDIS_CATEGORY_FLAGOP:
      return instruction.mnemonic != ZYDIS_MNEMONIC_CLI && instruction.mnemonic != ZYDIS_MNEMONIC_STI;
    // What saves the flags would save the trace flag, what loads them would take it away.
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
      return instruction.mnemonic == ZYDIS_MNEMONIC_PUSH || instruction.mnemonic == ZYDIS_MNEMONIC_POP;
    case ZYDIS_CATEGORY_RET:
      return instruction.mnemonic == ZYDIS_MNEMONIC_RET;  // not IRET
    case ZYDIS_CATEGORY_MISC:
      return instruction.mnemonic == ZYDIS_MNEMONIC_LEA || instruction.mnemonic == ZYDIS_MNEMONIC_LEAVE ||
             instruction.mnemonic == ZYDIS_MNEMONIC_XLAT;
    case ZYDIS_CATEGORY_AVX:
    case ZYDIS_CATEGORY_AVX2:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_WIDENOP:
      return true;
    default:
      return false;
  }
}

bool is_branch(const ZydisDecodedInstruction& instruction) {
  return instruction.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
}

bool is_repeated(const ZydisDecodedInstruction& instruction) {
  constexpr ZydisInstructionAttributes kRepeated =
      ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
  return (instruction.attributes & kRepeated) != 0;
}

// All that a repeated instruction can go through; nothing: too much to be looked at.
std::optional<std::vector<LinearRange>> ranges_of(const Decoded& decoded, const kvm_regs& regs,
                                                  const kvm_sregs& sregs) {
  constexpr uint64_t kMost = 256ull << 20;  // bytes; more is no memory of a guest here
  const x86::OperandAddresses addresses(cpu_state(regs, sregs));
  const uint64_t count = decoded.instruction.address_width == 64 ? regs.rcx : regs.rcx & 0xffff'ffff;
  std::vector<LinearRange> ranges;
  for (const auto& operand : decoded.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    const uint64_t element = operand.size / 8u;
    if (count == 0 || element == 0) continue;
    const auto address = addresses.of(decoded.instruction, operand);
    if (count > kMost / element || !address.has_value()) return std::nullopt;
    const uint64_t behind = (regs.rflags & x86::kDirectionFlag) != 0 ? (count - 1) * element : 0;
    ranges.push_back({Gva(*address - behind), count * element});
  }
  return ranges;
}

// Source: Intel SDM vol. 2, IRET/IRETQ, and vol. 3, 6.14.3.
StepPlan plan_interrupt_return(const x86::LinearMemory& memory, const kvm_regs& regs, StepPlan plan) {
  std::array<uint64_t, 5> frame{};  // rip, cs, rflags, rsp, ss
  if (memory.read(Gva(regs.rsp), {reinterpret_cast<uint8_t*>(frame.data()), sizeof frame}) < sizeof frame ||
      (frame[2] & x86::kTraceFlag) != 0 || frame[0] == regs.rip)
    return {};
  plan.next = Gva(frame[0]);
  plan.next_is_user = (frame[1] & 3) == 3;
  if (plan.next_is_user) plan.segments = UserSegments::kOfTables;
  return plan;
}

// Where software KVM runs user code without its knowledge, SYSCALL leaves the privilege level as it is
// (docs/hosts.md).
Result<StepPlan> plan_system_call(const KvmVcpu& vcpu, StepPlan plan) {
  TRY_ASSIGN(const uint64_t target, vcpu.msr(kLongTargetMsr));
  plan.next = Gva(target);
  plan.next_is_user = plan.next_is_user && !traces_user_mode();
  return plan;
}

// In 64-bit mode, of what changes the flow of control other than by a branch.
Result<StepPlan> plan_flow(const KvmVcpu& vcpu, const x86::LinearMemory& memory, const Decoded& decoded,
                           const kvm_regs& regs, StepPlan plan) {
  switch (decoded.instruction.mnemonic) {
    case ZYDIS_MNEMONIC_IRETQ:
      return plan_interrupt_return(memory, regs, plan);
    case ZYDIS_MNEMONIC_SYSCALL:
      return plan_system_call(vcpu, plan);
    case ZYDIS_MNEMONIC_SYSRET:
      plan.next = Gva(decoded.instruction.operand_width == 64 ? regs.rcx : regs.rcx & 0xffff'ffff);
      plan.next_is_user = true;
      plan.segments = UserSegments::kFlat;
      return plan;
    case ZYDIS_MNEMONIC_INT:
      plan.vector = static_cast<uint8_t>(decoded.instruction.raw.imm[0].value.u);
      [[fallthrough]];
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
      plan.next.reset();
      return plan;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
      return StepPlan();
    default:
      return plan;
  }
}

uint8_t shadow_of(const Decoded& decoded, const kvm_regs& regs) {
  const auto mnemonic = decoded.instruction.mnemonic;
  // Source: Intel SDM vol. 2, STI; vol. 3, 6.8.3 (MOV and POP to SS).
  if (mnemonic == ZYDIS_MNEMONIC_STI && (regs.rflags & x86::kInterruptFlag) == 0)
    return KVM_X86_SHADOW_INT_STI;
  if (mnemonic != ZYDIS_MNEMONIC_MOV && mnemonic != ZYDIS_MNEMONIC_POP) return 0;
  const bool loads_ss = std::ranges::any_of(decoded.operands(), [](const auto& operand) {
    return loads_segment(operand) && operand.reg.value == ZYDIS_REGISTER_SS;
  });
  return loads_ss ? KVM_X86_SHADOW_INT_MOV_SS : 0;
}

StepPlan plan_repeated(const Decoded& decoded, const kvm_regs& regs, const kvm_sregs& sregs, StepPlan plan) {
  if (!in_64bit(sregs)) {
    plan.method = (regs.rcx & 0xffff'ffff) > kMostTraced ? StepMethod::kNone : StepMethod::kTrace;
    return plan;
  }
  auto ranges = ranges_of(decoded, regs, sregs);
  if (!ranges.has_value()) return {};
  plan.ranges = *std::move(ranges);
  return plan;
}

}  // namespace

Result<StepPlan> plan_step(const KvmVcpu& vcpu, const x86::LinearMemory& memory, const kvm_regs& regs,
                           const kvm_sregs& sregs) {
  Decoded decoded;
  std::array<uint8_t, kLongestInstruction> code{};
  const size_t bytes =
      memory.read(code_address(sregs, regs.rip), code, {.fetch = true, .user = sregs.ss.dpl == 3});
  const ZydisDecoder decoder = decoder_for(sregs);
  StepPlan plan{.method = StepMethod::kFence};
  if (!ZYAN_SUCCESS(
          ZydisDecoderDecodeFull(&decoder, code.data(), bytes, &decoded.instruction, decoded.all.data())))
    return plan;
  const ZydisDecodedInstruction& instruction = decoded.instruction;
  const uint64_t next_rip = regs.rip + instruction.length;
  plan.next = code_address(sregs, next_rip);
  plan.next_is_user = sregs.ss.dpl == 3;
  plan.shadow = shadow_of(decoded, regs);
  if (is_repeated(instruction)) return plan_repeated(decoded, regs, sregs, plan);
  const bool aligned = (regs.rflags & x86::kAlignmentFlag) == 0 || sregs.ss.dpl != 3;
  if (aligned && is_plain(instruction) && operands_are_plain(decoded, regs, sregs)) {
    plan.method = StepMethod::kTrace;
    if (!is_branch(instruction)) plan.next_rip = next_rip;
    return plan;
  }
  if (in_64bit(sregs)) return plan_flow(vcpu, memory, decoded, regs, plan);
  // Outside it, fences know no handlers: what may lead to one, or elsewhere, is entered.
  const bool falls_through = instruction.meta.category == ZYDIS_CATEGORY_SYSTEM ||
                             instruction.meta.category == ZYDIS_CATEGORY_DATAXFER ||
                             instruction.meta.category == ZYDIS_CATEGORY_FLAGOP ||
                             instruction.meta.category == ZYDIS_CATEGORY_MISC;
  return falls_through && sregs.ss.dpl == 0 ? plan : StepPlan();
}

std::optional<StepPlan> plan_delivery(const kvm_vcpu_events& events) {
  StepPlan plan{.method = StepMethod::kFence};
  if (events.exception.injected != 0 || events.exception.pending != 0) return plan;
  if (events.nmi.injected != 0 || events.nmi.pending != 0) return plan;
  if (events.interrupt.injected == 0) return std::nullopt;
  plan.vector = events.interrupt.nr;
  return plan;
}

}  // namespace reprise::vmm
