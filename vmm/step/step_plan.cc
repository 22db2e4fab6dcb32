#include "vmm/step/step_plan.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/host/processor.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/instruction.h"
#include "x86/operand_address.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kCr0NoCoprocessor = 1 << 2 | 1 << 3;  // EM, TS: Intel SDM vol. 3, 2.5
constexpr uint32_t kLongTargetMsr = 0xc0000082;          // LSTAR: Intel SDM vol. 4
// Of a string instruction outside 64-bit mode, which is traced: 2 ms where a step is slow.
constexpr uint64_t kMostTraced = 64;

// Whether no operand is one of an instruction that can raise more than its address: x87's pending exceptions,
// an XMM operand's alignment.
bool operands_are_plain(const x86::Instruction& instruction, const x86::CpuState& state) {
  bool wide = false;
  for (const auto& operand : instruction.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER || x86::is_general_register(operand)) continue;
    switch (ZydisRegisterGetClass(operand.reg.value)) {
      case ZYDIS_REGCLASS_XMM:
      case ZYDIS_REGCLASS_YMM:
        wide = true;
        break;
      case ZYDIS_REGCLASS_SEGMENT:  // read; or the code segment of a branch
        if (instruction.loads_segment(operand) && operand.reg.value != ZYDIS_REGISTER_CS) return false;
        break;
      default:
        return false;
    }
  }
  if (!wide) return true;
  if ((state.cr0 & kCr0NoCoprocessor) != 0) return false;
  return std::ranges::all_of(instruction.operands(), [&](const auto& operand) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) return true;
    if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || operand.mem.segment == ZYDIS_REGISTER_FS ||
        operand.mem.segment == ZYDIS_REGISTER_GS)
      return false;
    const auto address = x86::operand_address(state, instruction, operand);
    return address.has_value() && address->raw % static_cast<uint64_t>(std::max(1, operand.size / 8)) == 0;
  });
}

// All that a repeated instruction can go through; nothing: too much to be looked at.
std::optional<std::vector<LinearRange>> ranges_of(const x86::Instruction& instruction,
                                                  const x86::CpuState& state) {
  constexpr uint64_t kMost = 256ull << 20;  // bytes; more is no memory of a guest here
  const uint64_t rcx = state.registers[x86::kRcx];
  const uint64_t count = instruction.decoded.address_width == 64 ? rcx : rcx & 0xffff'ffff;
  std::vector<LinearRange> ranges;
  for (const auto& operand : instruction.operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    const uint64_t element = operand.size / 8u;
    if (count == 0 || element == 0) continue;
    const auto address = x86::operand_address(state, instruction, operand);
    if (count > kMost / element || !address.has_value()) return std::nullopt;
    const uint64_t behind = (state.rflags & x86::kDirectionFlag) != 0 ? (count - 1) * element : 0;
    ranges.push_back({Gva(address->raw - behind), count * element});
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
Result<StepPlan> plan_flow(const KvmVcpu& vcpu, const x86::LinearMemory& memory,
                           const x86::Instruction& instruction, const kvm_regs& regs, StepPlan plan) {
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_IRETQ:
      return plan_interrupt_return(memory, regs, plan);
    case ZYDIS_MNEMONIC_SYSCALL:
      return plan_system_call(vcpu, plan);
    case ZYDIS_MNEMONIC_SYSRET:
      plan.next = Gva(instruction.decoded.operand_width == 64 ? regs.rcx : regs.rcx & 0xffff'ffff);
      plan.next_is_user = true;
      plan.segments = UserSegments::kFlat;
      return plan;
    case ZYDIS_MNEMONIC_INT:
      plan.vector = static_cast<uint8_t>(instruction.decoded.raw.imm[0].value.u);
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

// Source: Intel SDM vol. 2, STI; vol. 3, 6.8.3 (MOV and POP to SS).
uint8_t shadow_of(const x86::Instruction& instruction, const x86::CpuState& state) {
  if (instruction.mnemonic() == ZYDIS_MNEMONIC_STI && (state.rflags & x86::kInterruptFlag) == 0)
    return KVM_X86_SHADOW_INT_STI;
  return instruction.loads_stack_segment() ? KVM_X86_SHADOW_INT_MOV_SS : 0;
}

StepPlan plan_repeated(const x86::Instruction& instruction, const x86::CpuState& state, StepPlan plan) {
  if (!state.in_64bit()) {
    plan.method =
        (state.registers[x86::kRcx] & 0xffff'ffff) > kMostTraced ? StepMethod::kNone : StepMethod::kTrace;
    return plan;
  }
  auto ranges = ranges_of(instruction, state);
  if (!ranges.has_value()) return {};
  plan.ranges = *std::move(ranges);
  return plan;
}

}  // namespace

Result<StepPlan> plan_step(const KvmVcpu& vcpu, const x86::LinearMemory& memory, const kvm_regs& regs,
                           const kvm_sregs& sregs) {
  const x86::CpuState state = cpu_state(regs, sregs);
  x86::Instruction instruction;
  StepPlan plan{.method = StepMethod::kBreakpoints};
  if (!x86::fetch(state, memory, instruction)) return plan;
  const uint64_t next_rip = regs.rip + instruction.length();
  plan.next = x86::code_address(state, next_rip);
  plan.next_is_user = state.cpl == 3;
  plan.shadow = shadow_of(instruction, state);
  if (instruction.is_repeated()) return plan_repeated(instruction, state, plan);
  const bool aligned = (regs.rflags & x86::kAlignmentFlag) == 0 || state.cpl != 3;
  if (aligned && instruction.hides_trap_flag() && operands_are_plain(instruction, state)) {
    plan.method = StepMethod::kTrace;
    if (!instruction.is_branch()) plan.next_rip = next_rip;
    return plan;
  }
  if (state.in_64bit()) return plan_flow(vcpu, memory, instruction, regs, plan);
  // Outside it, temporary breakpoints know no handlers: what may lead to one, or elsewhere, is entered.
  const auto category = instruction.decoded.meta.category;
  const bool falls_through = category == ZYDIS_CATEGORY_SYSTEM || category == ZYDIS_CATEGORY_DATAXFER ||
                             category == ZYDIS_CATEGORY_FLAGOP || category == ZYDIS_CATEGORY_MISC;
  return falls_through && state.cpl == 0 ? plan : StepPlan();
}

std::optional<StepPlan> plan_delivery(const kvm_vcpu_events& events) {
  StepPlan plan{.method = StepMethod::kBreakpoints};
  if (events.exception.injected != 0 || events.exception.pending != 0) return plan;
  if (events.nmi.injected != 0 || events.nmi.pending != 0) return plan;
  if (events.interrupt.injected == 0) return std::nullopt;
  plan.vector = events.interrupt.nr;
  return plan;
}

}  // namespace reprise::vmm
