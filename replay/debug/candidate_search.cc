#include "replay/debug/candidate_search.h"

#include "replay/debug/software_breakpoints.h"

namespace reprise::replay {
namespace {

class CandidateWatcher final : public ExitWatcher {
 public:
  CandidateWatcher(SoftwareBreakpoints& breakpoints, WatchedMemory& memory, const StopConditions& conditions)
      : breakpoints_(breakpoints), memory_(memory), conditions_(conditions) {}

  // The breakpoint at which the vCPU was caught; nothing: it was something else.
  [[nodiscard]] std::optional<Gva> address() const { return address_; }

  Status enter(VcpuId vcpu) override {
    TRY(breakpoints_.enter(vcpu));
    return memory_.enter(vcpu);
  }
  Result<vmm::WatchVerdict> look_at(VcpuId vcpu, vmm::ExitKind exit) override {
    using vmm::WatchVerdict;
    TRY_ASSIGN(const bool own, breakpoints_.pass(vcpu, exit));
    if (own) return WatchVerdict::kDone;
    TRY_ASSIGN(address_, breakpoints_.find(vcpu, exit));
    if (address_.has_value()) {
      TRY_ASSIGN(const auto verdict, breakpoints_.pass_unwanted(vcpu, *address_, [&] {
        return conditions_.wanted(vcpu, *address_);
      }));
      if (verdict != WatchVerdict::kCaught) address_.reset();
      if (verdict != WatchVerdict::kHandle) return verdict;
    }
    return memory_.look_at(vcpu, exit);
  }
  bool catches_part(VcpuId vcpu, vmm::ExitKind exit) override {
    return memory_.is_restricted_access(vcpu, exit);
  }
  Result<bool> catches_access(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write) override {
    return memory_.is_touched(vcpu, gpa, bytes, is_write);
  }
  bool catches_devices() override { return memory_.is_touched_by_devices(); }
  bool lift() override { return conditions_.ranges.empty() && breakpoints_.lift(); }

 private:
  SoftwareBreakpoints& breakpoints_;
  WatchedMemory& memory_;
  const StopConditions& conditions_;
  std::optional<Gva> address_;
};

}  // namespace

Result<std::optional<CandidateHit>> find_candidate(Timeline& timeline, const StopConditions& conditions,
                                                   const Mark& end) {
  TRY_ASSIGN(const auto breakpoints, SoftwareBreakpoints::plant(timeline.machine(), conditions.addresses));
  TRY_ASSIGN(const auto memory, WatchedMemory::watch(timeline.machine(), conditions.ranges));
  CandidateWatcher watcher(*breakpoints, *memory, conditions);
  TRY_ASSIGN(const auto mark, timeline.run_watched(watcher, end));
  if (!mark.has_value()) return std::optional<CandidateHit>();
  return std::optional(CandidateHit{*mark, watcher.address()});
}

}  // namespace reprise::replay
