// A vCPU that leaves the recorded run, because a debugger changes it (replay/debug/diversion.h).
#include "vmm/vcpu.h"

namespace reprise::vmm {
namespace {

// Of an instruction, each of them an exit: a page of bytes that a string instruction sends to a port.
constexpr unsigned kMostParts = 4096;

}  // namespace

void Vcpu::divert(Journal& journal) {
  journal_ = &journal;
  journal_->arrive(position());
  leaving_ = left_ = later_ = false;
}

Status Vcpu::drop_what_is_under_way() {
  if (parts_.apic.waiting_for_startup())
    return fail(ErrorCode::kUsage, "vCPU {} has not been started yet: its registers cannot be changed",
                parts_.id.raw);
  TRY(drop_exit());
  TRY_ASSIGN(kvm_vcpu_events events, parts_.kvm.events());
  events.exception = {};
  events.interrupt = {};
  events.nmi.injected = events.nmi.pending = 0;
  events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  TRY(parts_.kvm.set_events(events));
  faulting_for_.reset();
  faulting_.reset();
  halted_ = counted_ = false;
  after_ = After::kFault;
  return {};
}

// An exit that has begun is dropped with the instruction that made it.
Status Vcpu::drop_exit() {
  if (!std::exchange(unfinished_, std::nullopt).has_value()) return {};
  for (unsigned parts = 0; parts < kMostParts; ++parts) {
    TRY_ASSIGN(const auto part, parts_.kvm.complete());
    if (!part.has_value()) return {};
  }
  return fail(ErrorCode::kHost, "KVM does not come to the end of an instruction (exit reason {})",
              parts_.kvm.shared().exit_reason);
}

}  // namespace reprise::vmm
