// A vCPU one instruction at a time.
#include <algorithm>

#include "vmm/debug/single_step.h"
#include "vmm/vcpu.h"

namespace reprise::vmm {

Result<Vcpu::Advance> Vcpu::step(Ticks next) {
  stepped_ = false;
  step_until_ = next;
  auto advanced = advance();
  step_until_.reset();
  return advanced;
}

// True: one instruction has been carried out, and nothing else has happened. False: this one must be entered
// as always; it makes a stop, or cannot be stepped over.
Result<bool> Vcpu::step_over() {
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  const auto set = touched_pages(regs, sregs);
  if (!set || !set->complete || set->exception.has_value() || !missing(*set).empty()) return false;
  const auto outside = [&](const ept::PageRight& access) {
    return access.page.raw >= parts_.memory.view().ram_pages();
  };
  if (std::ranges::any_of(set->pages(), outside)) return false;
  TRY_ASSIGN(const kvm_vcpu_events events, parts_.kvm.events());
  if (events.exception.injected != 0 || events.exception.pending != 0 || events.interrupt.injected != 0 ||
      events.nmi.pending != 0)
    return false;
  if (!can_step_over(LinearMemory(sregs, parts_.memory), regs)) return false;
  parts_.clock.stop_at(*step_until_);
  TRY_ASSIGN(const bool stepped, single_step(parts_.kvm));
  if (stepped) after_ = After::kFault;
  return stepped;
}

}  // namespace reprise::vmm
