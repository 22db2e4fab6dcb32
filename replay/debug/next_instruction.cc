#include "replay/debug/next_instruction.h"

#include <algorithm>

#include "vmm/kvm/cpu_state.h"
#include "vmm/step/single_step.h"
#include "x86/linear_memory.h"

namespace reprise::replay {

Result<std::optional<NextInstruction>> decode_next(vmm::Machine& machine, VcpuId vcpu) {
  vmm::KvmVcpu& kvm = machine.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  TRY_ASSIGN(const kvm_vcpu_events events, kvm.events());
  const vmm::WholeMemory memory(machine, vcpu);
  const bool raised = events.exception.injected != 0 || events.exception.pending != 0;
  std::optional<NextInstruction> next(std::in_place);
  x86::AccessOptions options;
  Result<x86::AccessSet> set;
  if (raised || events.interrupt.injected != 0) {
    set = x86::delivery_access(vmm::cpu_state(regs, sregs), memory, options,
                               raised ? events.exception.nr : events.interrupt.nr);
  } else {
    options.touches = &next->touches;
    set = x86::decode_access(vmm::cpu_state(regs, sregs), memory, options);
    next->is_instruction = set && !set->exception.has_value();
  }
  if (!set || !set->complete) return std::optional<NextInstruction>();
  next->set = *set;
  if (!next->is_instruction) next->touches.clear();
  return next;
}

Result<std::vector<x86::DataTouch>> next_touches(vmm::Machine& machine, VcpuId vcpu) {
  TRY_ASSIGN(auto next, decode_next(machine, vcpu));
  return next.has_value() ? std::move(next->touches) : std::vector<x86::DataTouch>();
}

Result<bool> trace_next(vmm::Machine& machine, VcpuId vcpu) {
  vmm::KvmVcpu& kvm = machine.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  const vmm::WholeMemory physical(machine, vcpu);
  TRY_ASSIGN(const auto plan,
             vmm::plan_step(kvm, x86::LinearMemory(vmm::paging_of(sregs), physical), regs, sregs));
  if (plan.method != vmm::StepMethod::kTrace) return false;
  TRY_ASSIGN(const auto outcome, vmm::single_step(kvm, plan));
  return outcome.carried_out;
}

Result<bool> trace_next_if_granted(vmm::Machine& machine, VcpuId vcpu) {
  TRY_ASSIGN(const auto next, decode_next(machine, vcpu));
  const ept::View& view = machine.view(vcpu);
  const auto is_granted = [&](const PageRight& access) {
    return access.page.raw < view.ram_pages() && view.allows(access.page, access.right);
  };
  if (!next.has_value() || !next->is_instruction || !std::ranges::all_of(next->set.pages(), is_granted))
    return false;
  for (const auto& access : next->set.pages()) TRY(machine.view(vcpu).prepare(access.page));
  return trace_next(machine, vcpu);
}

}  // namespace reprise::replay
