// What the run loop of a vCPU, its exit handlers, its fault resolver and its injector share: where it stands,
// its stops with their digest, and its journal.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "vmm/vcpu/flow.h"
#include "vmm/vcpu/vcpu_parts.h"
#include "vmm/vcpu/vcpu_state.h"
#include "vmm/vcpu/vcpu_watch.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread, but for visible_stops().
class VcpuContext {
 public:
  explicit VcpuContext(const VcpuParts& parts) : parts_(parts) {}
  VcpuContext(const VcpuContext&) = delete;
  VcpuContext& operator=(const VcpuContext&) = delete;

  [[nodiscard]] const VcpuParts& parts() const { return parts_; }
  [[nodiscard]] KvmVcpu& kvm() const { return parts_.kvm; }
  [[nodiscard]] ViewMemory& memory() const { return parts_.memory; }
  [[nodiscard]] Journal& journal() const { return *journal_; }
  // Another one than that of `parts`, in a diversion; and back.
  void set_journal(Journal& journal) { journal_ = &journal; }
  [[nodiscard]] VcpuStatistics& statistics() { return statistics_; }
  [[nodiscard]] const VcpuStatistics& statistics() const { return statistics_; }
  [[nodiscard]] VcpuWatch& watch() { return watch_; }

  [[nodiscard]] const Standing& standing() const { return standing_; }
  void stand(Standing standing) { standing_ = std::move(standing); }
  // It executes nothing until something wakes it.
  [[nodiscard]] bool is_halted() const { return halted_; }
  void set_halted(bool halted) { halted_ = halted; }
  // Whether the guest takes interrupts, at the last position.
  [[nodiscard]] bool interrupts_enabled() const { return interrupts_enabled_; }
  void set_interrupts_enabled(bool enabled) { interrupts_enabled_ = enabled; }

  // The vCPU as the guest's changed kernel sees it.
  [[nodiscard]] ExitedVcpu exited() const { return {parts_.id, parts_.kvm, parts_.memory, *journal_}; }

  // --- stops ---
  [[nodiscard]] Position position() const { return {stops_, parts_.positioner.ticks()}; }
  // A deterministic stop begins.
  void count_stop();
  // Its instruction is complete (or, at a fault, has not begun). `raises`: it ends with an exception, which
  // KVM will deliver. Errors: kHost; those of the journal.
  Status end_stop(bool raises = false);
  // The guest did what no machine could continue from: the machine stops, as at any stop. Errors: as
  // end_stop().
  Status guest_error(const std::string& what);
  // How many stops it has completed, at faults those before the instruction; for comparing with before.
  [[nodiscard]] uint64_t completed_stops() const { return completed_stops_; }
  // How many it has made, as seen from another thread. Threads: any.
  [[nodiscard]] uint64_t visible_stops() const { return visible_stops_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t digest() const { return digest_; }
  // Requires: not in the middle of an exit.
  void visit(StateVisitor& visitor);

  // --- pages and tokens ---
  // Grants `needed`, or the right to all of memory and all devices; chaos may grant reading before writing.
  // The vCPU has the turn afterwards, where it needs that. Not kGo: not granted. Errors: those of the
  // journal.
  Result<Flow> acquire(std::span<const PageRight> needed, bool again);
  // Whether the vCPU may use this now: the right alone is not enough, for the turn may be lost while it
  // waits.
  [[nodiscard]] bool holds(const PageRight& need) const;
  // One that may be ours already, and is afterwards.
  Result<Flow> acquire(PageNumber page, Right right);
  // To execute, where that needs the turn.
  Result<Flow> take_turn();

  // What a device wants done.
  void perform(Effects effects);

 private:
  Status check_tables();
  Result<Flow> ask(std::span<const PageRight> needed, bool again);
  [[nodiscard]] bool has_turn() const;

  VcpuParts parts_;
  Journal* journal_ = &parts_.journal;
  Standing standing_;
  bool halted_ = false;
  bool interrupts_enabled_ = false;
  uint64_t stops_ = 0;
  uint64_t compared_stops_ = 0;  // stops_ when digest_ was last extended
  uint64_t digest_ = 0;
  uint64_t completed_stops_ = 0;
  std::atomic<uint64_t> visible_stops_{0};
  VcpuWatch watch_;
  VcpuStatistics statistics_;
};

}  // namespace reprise::vmm
