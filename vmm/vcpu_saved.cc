// A vCPU between two stops, as checkpoints keep it.
#include "base/check.h"
#include "vmm/vcpu.h"

namespace reprise::vmm {

Result<VcpuState> Vcpu::save(std::span<const uint32_t> msrs) {
  REPRISE_CHECK(can_be_saved());
  VcpuState state;
  TRY_ASSIGN(state.kvm, parts_.kvm.save(msrs));
  state.apic = parts_.apic.state();
  state.stops = stops_;
  state.compared_stops = compared_stops_;
  state.digest = digest_;
  state.after = static_cast<int>(after_);
  state.halted = halted_;
  state.interrupts_enabled = interrupts_enabled_;
  state.faulting = faulting_;
  state.faulting_for = faulting_for_;
  state.for_board = for_board_;
  state.statistics = statistics_;
  return state;
}

Status Vcpu::restore(const VcpuState& state) {
  TRY(drop_exit());
  journal_ = &parts_.journal;
  TRY(parts_.kvm.restore(state.kvm));
  parts_.apic.set_state(state.apic);
  stops_ = state.stops;
  visible_stops_.store(stops_, std::memory_order_relaxed);
  compared_stops_ = state.compared_stops;
  digest_ = state.digest;
  after_ = static_cast<After>(state.after);
  halted_ = state.halted;
  interrupts_enabled_ = state.interrupts_enabled;
  faulting_ = state.faulting;
  faulting_for_ = state.faulting_for;
  for_board_ = state.for_board;
  statistics_ = state.statistics;
  host_retries_ = 0;
  counted_ = leaving_ = left_ = later_ = caught_ = false;
  return {};
}

}  // namespace reprise::vmm
