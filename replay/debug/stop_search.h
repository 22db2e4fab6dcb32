// Where a debugger stops: breakpoints, watchpoints and single instructions, in both directions of a timeline.
//
// They are looked for dirtily and arrived at cleanly: bytes are planted and pages are restricted, the machine
// runs natively until it comes to one, and that says when it was; then it goes back and runs to shortly
// before that moment as it was recorded, and the last few dozens of instructions one by one. So nothing that
// was done to find a place can be seen at it. Going backward searches windows that grow, and halves the last
// one.
//
// Where an instruction cannot be stepped over by itself (vmm/step/single_step.h), a step goes on to the
// vCPU's next stop or safepoint.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "replay/debug/candidate_search.h"
#include "replay/debug/stop.h"
#include "replay/debug/walked_gap.h"
#include "replay/timeline/timeline.h"

namespace reprise::replay {

// Threads: confined to the timeline's thread.
class StopSearch {
 public:
  using Stop = std::optional<StopEvent>;

  // It outlives this.
  explicit StopSearch(Timeline& timeline) : StopSearch(timeline, timeline.now()) {}

  // As DebugTarget's. What a watchpoint looks at is guest-physical: what its address means, when it is
  // inserted, to the vCPU whose turn it is, else to another one, else what it meant the last time.
  // Errors: kUsage if that is nothing that can be watched.
  Status insert(const Breakpoint& breakpoint);
  void remove(const Breakpoint& breakpoint);

  // As DebugTarget::resume() and step(). Errors: theirs; the machine may be tainted then.
  Result<StopEvent> run_forward(const Mark& end, RunListener& listener);
  Result<StopEvent> run_backward(RunListener& listener);
  Result<StopEvent> step_forward(VcpuId vcpu, RunListener& listener);
  Result<StopEvent> step_backward(VcpuId vcpu, RunListener& listener);

  // To before the last access to `range`; nothing, and at the beginning: there is none.
  Result<Stop> last_access(const WatchedRange& range, Interruption& interruption);

  // About the vCPU whose turn it is.
  [[nodiscard]] StopEvent stop_here(StopReason reason) const;

  // For who moves the machine by other means (replay/debug/diversion.h):
  // What stops a vCPU that is about to execute this address.
  [[nodiscard]] Stop breakpoint_at(VcpuId vcpu, Gva address) const;
  [[nodiscard]] std::set<Gva> addresses() const;
  [[nodiscard]] bool watches_memory() const { return !ranges_.empty(); }
  // Carries out `step`, which is to be one instruction of this vCPU and says whether it was completed; if so,
  // what it has accessed of what is watched. Errors: those of `step`; kHost.
  struct WatchedStep {
    bool completed = false;
    Stop accessed;
  };
  // `begun`: one for all steps of a way; of each vCPU in the middle of an instruction, what that accesses.
  using Begun = std::map<VcpuId, StopEvent>;
  Result<WatchedStep> watch_step(VcpuId vcpu, Begun& begun, const std::function<Result<bool>()>& step);

 private:
  StopSearch(Timeline& timeline, const Mark& begin) : timeline_(timeline), begin_(begin) {}

  // A place to stop at, and where the machine is then.
  struct Hit {
    Mark mark;
    StopEvent stop;
  };
  // One instruction that has been completed.
  struct Completion {
    Mark before;
    Mark after;
  };
  // What of its own a walk must know from one instruction to the next.
  struct Walk {
    std::set<VcpuId> passed;  // those whose breakpoint at the instruction that they are in was dealt with
    Begun begun;
    Mark before;  // the last one's
    bool completed = false;
    Stop accessed;
  };

  Status walk(Walk& walk);
  [[nodiscard]] StopEvent watchpoint_at(VcpuId vcpu, const TouchedRange& touched, bool by_device) const;
  [[nodiscard]] bool is_looking() const { return !places_.empty() || !ranges_.empty(); }
  // It outlives what is returned.
  [[nodiscard]] StopConditions conditions(RunListener& listener) const;
  Result<Gva> rip(VcpuId vcpu) const;
  [[nodiscard]] std::optional<vmm::PhysicalAccess> write_under_way(VcpuId vcpu) const;
  // Of the vCPU whose turn it is, in a walk: that is noted.
  Result<Gva> next_rip(VcpuId vcpu);
  [[nodiscard]] uint64_t sum_of(VcpuId vcpu) const;

  // To the first wanted stop before `end`, from here on; nothing: to `end`, or where it is.
  Result<Stop> first(const Mark& end, RunListener& listener);
  Result<Stop> arrive(const CandidateHit& candidate, const Mark& end, Walk& walk, RunListener& listener);
  // The last wanted stop in [begin, end) and not before `begin`; the machine is anywhere afterwards.
  Result<std::optional<Hit>> last_before(const Mark& floor, const Mark& end, RunListener& listener);
  Result<std::optional<Hit>> last_in(const Mark& begin, const Mark& end, RunListener& listener);
  Result<std::optional<Hit>> last_walked(const Mark& begin, const Mark& end, RunListener& listener);
  // The same in the part of it that was walked through before, which is left out of it then: `end` is where
  // it begins.
  Result<std::optional<Hit>> last_known(const Mark& begin, Mark& end, RunListener& listener);
  // From here on to `end`, or a little further.
  Result<std::optional<CandidateHit>> find_candidate_before(const Mark& end, RunListener& listener);
  // The same; comes back. True: there may be something.
  Result<bool> is_left(const Mark& end, RunListener& listener);
  // A mark about half-way; nothing: one can as well walk.
  Result<std::optional<Mark>> between(const Mark& begin, const Mark& end);
  // The first mark from which on the vCPU of this event has come so far.
  Result<Mark> seek_sum(uint64_t event, uint64_t sum);

  [[nodiscard]] Mark first_of(VcpuId vcpu) const;
  // The last two or fewer before `end`, or at it.
  Result<std::vector<Completion>> completions(const Mark& end);
  Result<std::vector<Completion>> last_completions(VcpuId vcpu, const Mark& end);

  Timeline& timeline_;
  const Mark begin_;
  std::set<Breakpoint> places_;
  std::vector<Breakpoint> watchpoints_;  // of ranges_, by index: a range on several pages is several
  std::map<Breakpoint, std::vector<WatchedRange>> meant_;
  std::vector<WatchedRange> ranges_;
  WalkedGap gap_;
  std::optional<VcpuId> ignored_;  // its breakpoints are not looked at
};

}  // namespace reprise::replay
