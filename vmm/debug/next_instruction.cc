#include "vmm/debug/next_instruction.h"

#include <algorithm>

#include "vmm/cpu_state.h"
#include "vmm/debug/single_step.h"
#include "vmm/linear_memory.h"

namespace reprise::vmm {

Result<std::optional<NextInstruction>> decode_next(Machine& machine, VcpuId vcpu) {
  KvmVcpu& kvm = machine.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  TRY_ASSIGN(const kvm_vcpu_events events, kvm.events());
  const WholeMemory memory(machine, vcpu);
  const bool raised = events.exception.injected != 0 || events.exception.pending != 0;
  std::optional<NextInstruction> next(std::in_place);
  ept::AccessOptions options;
  Result<ept::AccessSet> set;
  if (raised || events.interrupt.injected != 0) {
    set = ept::delivery_access(cpu_state(regs, sregs), memory, options,
                               raised ? events.exception.nr : events.interrupt.nr);
  } else {
    options.touches = &next->touches;
    set = ept::decode_access(cpu_state(regs, sregs), memory, options);
    next->is_instruction = set && !set->exception.has_value();
  }
  if (!set || !set->complete) return std::optional<NextInstruction>();
  next->set = *set;
  if (!next->is_instruction) next->touches.clear();
  return next;
}

Result<std::vector<ept::DataTouch>> next_touches(Machine& machine, VcpuId vcpu) {
  TRY_ASSIGN(auto next, decode_next(machine, vcpu));
  return next.has_value() ? std::move(next->touches) : std::vector<ept::DataTouch>();
}

Result<bool> trace_next(Machine& machine, VcpuId vcpu) {
  KvmVcpu& kvm = machine.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  const WholeMemory physical(machine, vcpu);
  TRY_ASSIGN(const auto plan, plan_step(kvm, LinearMemory(sregs, physical), regs, sregs));
  if (plan.method != StepMethod::kTrace) return false;
  TRY_ASSIGN(const auto outcome, single_step(kvm, plan));
  return outcome.carried_out;
}

Result<bool> trace_next_if_granted(Machine& machine, VcpuId vcpu) {
  TRY_ASSIGN(const auto next, decode_next(machine, vcpu));
  const ept::View& view = machine.view(vcpu);
  const auto is_granted = [&](const ept::PageRight& access) {
    return access.page.raw < view.ram_pages() && view.allows(access.page, access.right);
  };
  if (!next.has_value() || !next->is_instruction || !std::ranges::all_of(next->set.pages(), is_granted))
    return false;
  return trace_next(machine, vcpu);
}

}  // namespace reprise::vmm
