#include "replay/debug/stop_search.h"

#include <algorithm>
#include <array>

#include "replay/debug/next_instruction.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::replay {
namespace {

constexpr uint64_t kWindowGrowth = 4;
// Safepoints and stops, each with some dozen instructions: as far as it is quicker to walk than to search.
constexpr uint64_t kWalk = 16;
// As far as it is quicker to walk than to look whether there is anything.
constexpr uint64_t kFewSteps = 1000;
// Then it is looked whether anything is left: that takes about as long as some hundred of them.
constexpr uint64_t kStretch = 10'000;
// Hits that are not wanted, each gone to by itself; then it is quicker to walk.
constexpr int kMostRefused = 8;

// The nearest mark before `mark` that may be another position of the same vCPU.
Mark one_tick_before(const Mark& mark) {
  return {mark.event, {mark.at.stops, Ticks(mark.at.ticks.raw == 0 ? 0 : mark.at.ticks.raw - 1)}};
}

// Of a repeated string instruction: all elements that were gone through. One that has left the instruction
// has gone through all, or to where they differ.
void extend(std::vector<x86::DataTouch>& touches, const kvm_regs& before, const kvm_regs& after) {
  const uint64_t done =
      after.rip == before.rip || after.rcx < before.rcx ? before.rcx - after.rcx : before.rcx;
  for (auto& touch : touches) {
    if (!touch.repeats || done <= 1 || done > before.rcx) continue;
    const uint64_t element = touch.bytes;
    touch.bytes = done * element;
    if (touch.downwards) touch.linear = Gva(touch.linear.raw - (done - 1) * element);
  }
}

}  // namespace

// --- what is looked for ---

Status StopSearch::insert(const Breakpoint& breakpoint) {
  if (!breakpoint.is_watchpoint()) {
    places_.insert(breakpoint);
    return {};
  }
  if (std::ranges::find(watchpoints_, breakpoint) != watchpoints_.end()) return {};
  vmm::Machine& machine = timeline_.machine();
  std::vector<VcpuId> order{timeline_.turn().value_or(VcpuId(0))};
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) order.push_back(vcpu);
  bool mapped = false;
  for (size_t i = 0; i < order.size() && !mapped; ++i) {
    const VcpuId vcpu = order[i];
    TRY_ASSIGN(const kvm_sregs sregs, machine.kvm(vcpu).special_registers());
    const vmm::WholeMemory physical(machine, vcpu);
    const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
    std::vector<WatchedRange> ranges;
    uint64_t done = 0;
    while (done < breakpoint.length) {
      const Gva at(breakpoint.address.raw + done);
      const uint64_t part = std::min(breakpoint.length - done, kPageSize - at.raw % kPageSize);
      const auto gpa = memory.translate(at);
      if (!gpa.has_value()) break;
      ranges.push_back(
          {*gpa, part, breakpoint.kind != BreakpointKind::kWrite, breakpoint.kind != BreakpointKind::kRead});
      done += part;
    }
    mapped = done == breakpoint.length;
    if (mapped) meant_[breakpoint] = ranges;
  }
  const auto meant = meant_.find(breakpoint);
  if (meant == meant_.end())
    return fail(ErrorCode::kUsage, "{:#x} is not mapped now: watch it at a moment when it is",
                breakpoint.address.raw);
  TRY(WatchedMemory::check(machine, meant->second));
  for (const auto& range : meant->second) {
    ranges_.push_back(range);
    watchpoints_.push_back(breakpoint);
  }
  return {};
}

void StopSearch::remove(const Breakpoint& breakpoint) {
  places_.erase(breakpoint);
  for (size_t i = watchpoints_.size(); i-- > 0;) {
    if (watchpoints_[i] != breakpoint) continue;
    watchpoints_.erase(watchpoints_.begin() + static_cast<ptrdiff_t>(i));
    ranges_.erase(ranges_.begin() + static_cast<ptrdiff_t>(i));
  }
}

Result<StopSearch::Stop> StopSearch::last_access(const WatchedRange& range, Interruption& interruption) {
  class AllWanted final : public RunListener {
   public:
    explicit AllWanted(Interruption& interruption) : interruption_(interruption) {}
    bool interrupted() override { return interruption_.interrupted(); }
    bool wants(const StopEvent& /*stop*/) override { return true; }

   private:
    Interruption& interruption_;
  };
  AllWanted listener(interruption);
  StopSearch search(timeline_, begin_);
  search.ranges_ = {range};
  search.watchpoints_.resize(1);
  TRY_ASSIGN(const StopEvent stop, search.run_backward(listener));
  return stop.reason == StopReason::kWatchpoint ? Stop(stop) : Stop();
}

std::set<Gva> StopSearch::addresses() const {
  std::set<Gva> addresses;
  for (const auto& breakpoint : places_) addresses.insert(breakpoint.address);
  return addresses;
}

StopConditions StopSearch::conditions(RunListener& listener) const {
  return {.addresses = addresses(), .ranges = ranges_, .wanted = [this, &listener](VcpuId vcpu, Gva address) {
            const Stop stop = breakpoint_at(vcpu, address);
            return stop.has_value() && listener.wants(*stop);
          }};
}

StopSearch::Stop StopSearch::breakpoint_at(VcpuId vcpu, Gva address) const {
  if (vcpu == ignored_ || write_under_way(vcpu).has_value()) return std::nullopt;
  for (const auto kind : {BreakpointKind::kSoftware, BreakpointKind::kHardware}) {
    const auto found = places_.find({.kind = kind, .address = address});
    if (found != places_.end())
      return StopEvent{.reason = StopReason::kBreakpoint, .vcpu = vcpu, .hit = *found, .accessed = {}};
  }
  return std::nullopt;
}

StopEvent StopSearch::stop_here(StopReason reason) const {
  return {.reason = reason, .vcpu = timeline_.turn().value_or(VcpuId(0)), .hit = {}, .accessed = {}};
}

Result<Gva> StopSearch::rip(VcpuId vcpu) const {
  TRY_ASSIGN(const kvm_regs regs, timeline_.machine().kvm(vcpu).registers());
  return Gva(regs.rip);
}

// --- one instruction after the other ---

// In the middle of an instruction whose write KVM has yet to be answered: the registers are already those
// behind it.
std::optional<vmm::PhysicalAccess> StopSearch::write_under_way(VcpuId vcpu) const {
  const auto access = timeline_.machine().vcpu(vcpu).access_under_way();
  return access.has_value() && access->writes ? access : std::nullopt;
}

Result<Gva> StopSearch::next_rip(VcpuId vcpu) {
  TRY_ASSIGN(const Gva at, rip(vcpu));
  if (timeline_.machine().is_far_between_positions()) gap_.note(timeline_.now(), at);
  return at;
}

Result<StopSearch::WatchedStep> StopSearch::watch_step(VcpuId vcpu, Begun& begun,
                                                       const std::function<Result<bool>()>& step) {
  WatchedStep done;
  if (ranges_.empty()) {
    TRY_ASSIGN(done.completed, step());
    return done;
  }
  vmm::Machine& machine = timeline_.machine();
  vmm::DeviceAccesses& devices = machine.memory().device_accesses();
  std::vector<x86::DataTouch> touches;
  if (const auto write = write_under_way(vcpu)) {
    const auto touched = find_touched(std::array{*write}, ranges_);
    if (touched.has_value()) begun.emplace(vcpu, watchpoint_at(vcpu, *touched, false));
  } else {
    begun.erase(vcpu);
    TRY_ASSIGN(touches, next_touches(machine, vcpu));
  }
  TRY_ASSIGN(const kvm_regs before, machine.kvm(vcpu).registers());
  devices.list(true);
  const auto completed = step();
  const auto touched_by_device = find_touched(devices.take(), ranges_);
  devices.list(false);
  TRY_ASSIGN(done.completed, completed);
  if (!touches.empty()) {
    TRY_ASSIGN(const kvm_regs after, machine.kvm(vcpu).registers());
    if (done.completed) extend(touches, before, after);
    TRY_ASSIGN(const auto touched, find_touched(machine, vcpu, touches, ranges_));
    if (touched.has_value()) begun.emplace(vcpu, watchpoint_at(vcpu, *touched, false));
  }
  if (touched_by_device.has_value()) {
    done.accessed = watchpoint_at(vcpu, *touched_by_device, true);
  } else if (const auto at = begun.find(vcpu); done.completed && at != begun.end()) {
    done.accessed = at->second;
  }
  if (done.completed) begun.erase(vcpu);
  return done;
}

StopEvent StopSearch::watchpoint_at(VcpuId vcpu, const TouchedRange& touched, bool by_device) const {
  const Breakpoint& hit = watchpoints_[touched.index];
  uint64_t offset = touched.offset;
  for (size_t i = touched.index; i > 0 && watchpoints_[i - 1] == hit; --i) offset += ranges_[i - 1].bytes;
  return {.reason = StopReason::kWatchpoint,
          .vcpu = vcpu,
          .hit = hit,
          .accessed = Gva(hit.address.raw + offset),
          .by_device = by_device};
}

// The next one of the vCPU whose turn it is, or a part of it, up to where others are first.
Status StopSearch::walk(Walk& walk) {
  const VcpuId vcpu = *timeline_.turn();
  walk.before = timeline_.now();
  TRY_ASSIGN(const WatchedStep done, watch_step(vcpu, walk.begun, [this] { return timeline_.step(); }));
  walk.completed = done.completed;
  walk.accessed = done.accessed;
  if (walk.completed) walk.passed.erase(vcpu);
  return {};
}

// --- forward ---

Result<StopSearch::Stop> StopSearch::arrive(const CandidateHit& candidate, const Mark& end, Walk& walk,
                                            RunListener& listener) {
  const Mark late{candidate.mark.event, {candidate.mark.at.stops, candidate.mark.at.ticks + 1}};
  bool met = false;
  while (!timeline_.at_end() && timeline_.now() < late && timeline_.now() < end) {
    const VcpuId vcpu = *timeline_.turn();
    TRY_ASSIGN(const Gva at, next_rip(vcpu));
    if (const Stop stop = breakpoint_at(vcpu, at)) {
      met = true;
      if (!walk.passed.contains(vcpu) && listener.wants(*stop)) return stop;
      walk.passed.insert(vcpu);
    }
    TRY(this->walk(walk));
    if (walk.accessed.has_value()) return walk.accessed;
  }
  // Where single steps do not lead: the first place behind it.
  if (!met && candidate.address.has_value() && timeline_.now() < end)
    return stop_here(StopReason::kBreakpoint);
  return Stop();
}

Result<StopSearch::Stop> StopSearch::first(const Mark& end, RunListener& listener) {
  Walk walk;
  while (is_looking() && timeline_.now() < end) {
    const Mark begin = timeline_.now();
    TRY(timeline_.checkpoint_for_search());
    TRY_ASSIGN(const auto candidate, find_candidate(timeline_, conditions(listener), end));
    if (!candidate.has_value()) {
      TRY(timeline_.seek(std::max(begin, end)));
      return Stop();
    }
    // In the middle of a safepoint the clock is ahead of the position: one tick earlier is early enough.
    TRY(timeline_.seek(std::max(begin, one_tick_before(candidate->mark))));
    TRY_ASSIGN(const Stop stop, arrive(*candidate, end, walk, listener));
    if (stop.has_value()) return stop;
  }
  TRY(timeline_.seek(std::max(timeline_.now(), end)));
  return Stop();
}

Result<StopEvent> StopSearch::run_forward(const Mark& end, RunListener& listener) {
  TRY_ASSIGN(const Stop stop, first(end, listener));
  return stop.has_value() ? *stop : stop_here(StopReason::kEnd);
}

Result<StopEvent> StopSearch::step_forward(VcpuId vcpu, RunListener& listener) {
  Walk walk;
  while (!timeline_.at_end()) {
    if (timeline_.turn() != vcpu) {
      uint64_t event = timeline_.now().event;
      while (event < timeline_.end_event() && timeline_.owner_of(event) != vcpu) ++event;
      TRY_ASSIGN(const Stop stop, first({event}, listener));
      if (stop.has_value()) return *stop;
      continue;
    }
    TRY(this->walk(walk));
    if (walk.accessed.has_value()) return *walk.accessed;
    if (!walk.completed) continue;
    StopEvent stop = stop_here(StopReason::kStep);
    stop.vcpu = vcpu;
    return stop;
  }
  return stop_here(StopReason::kEnd);
}

// --- backward ---

Result<Mark> StopSearch::seek_sum(uint64_t event, uint64_t sum) {
  TRY(timeline_.seek_sum(event, sum));
  return timeline_.now();
}

Result<std::optional<Mark>> StopSearch::between(const Mark& begin, const Mark& end) {
  std::optional<Mark> none;
  uint64_t end_sum = end.at.sum();
  if (end.event > begin.event) {
    TRY(timeline_.seek({begin.event + std::max<uint64_t>(1, (end.event - begin.event) / 2)}));
    const Mark mid = timeline_.now();
    if (mid < end) return std::optional(mid);
    // The end is where the begin's event ends.
    const auto vcpu = timeline_.owner_of(begin.event);
    if (!vcpu.has_value()) return none;
    TRY(timeline_.seek(end));
    end_sum = sum_of(*vcpu);
  }
  // Without safepoints, it is far from one stop to the next.
  const uint64_t walk = timeline_.machine().is_far_between_positions() ? 1 : kWalk;
  if (end_sum <= begin.at.sum() + walk) return none;
  TRY(timeline_.seek(begin));
  TRY_ASSIGN(const Mark mid, seek_sum(begin.event, begin.at.sum() + (end_sum - begin.at.sum()) / 2));
  return begin < mid && mid < end ? std::optional(mid) : none;
}

uint64_t StopSearch::sum_of(VcpuId vcpu) const {
  return timeline_.machine().vcpu(vcpu).position().sum();
}

Result<std::optional<StopSearch::Hit>> StopSearch::last_known(const Mark& begin, Mark& end,
                                                              RunListener& listener) {
  std::optional<Hit> none;
  if (!ranges_.empty() || !gap_.covers(end)) return none;
  const auto vcpu = timeline_.owner_of(end.event);
  const auto addresses = this->addresses();
  for (int refused = 0;; ++refused) {
    const auto at = gap_.last_at(addresses, begin, end);
    end = at.value_or(std::max(begin, end.without_steps()));
    if (!at.has_value() || refused == kMostRefused) return none;
    TRY(timeline_.seek(*at));
    TRY_ASSIGN(const Gva address, rip(*vcpu));
    const Stop stop = breakpoint_at(*vcpu, address);
    if (stop.has_value() && listener.wants(*stop)) return std::optional(Hit{*at, *stop});
  }
}

Result<std::optional<StopSearch::Hit>> StopSearch::last_walked(const Mark& begin, const Mark& end,
                                                               RunListener& listener) {
  TRY(timeline_.seek(begin));
  Walk walk;
  // What a vCPU is in the middle of has begun in an earlier window.
  for (VcpuId vcpu; vcpu.raw < timeline_.machine().vcpus(); ++vcpu)
    if (begin.at.steps == 0 && timeline_.machine().vcpu(vcpu).at_fault()) walk.passed.insert(vcpu);
  std::optional<Hit> last;
  for (uint64_t walked = 0; !timeline_.at_end() && timeline_.now() < end; ++walked) {
    if (timeline_.machine().is_far_between_positions() && walked % kStretch == kStretch - 1) {
      TRY_ASSIGN(const bool left, is_left(end, listener));
      if (!left) break;
    }
    const VcpuId vcpu = *timeline_.turn();
    TRY_ASSIGN(const Gva at, next_rip(vcpu));
    if (const Stop stop = breakpoint_at(vcpu, at)) {
      if (!walk.passed.contains(vcpu) && listener.wants(*stop)) last = Hit{timeline_.now(), *stop};
      walk.passed.insert(vcpu);
    }
    TRY(this->walk(walk));
    if (walk.accessed.has_value() && timeline_.now() <= end) last = Hit{walk.before, *walk.accessed};
  }
  return last;
}

// Only positions can be looked up to: what is seen may be behind `end`.
Result<std::optional<CandidateHit>> StopSearch::find_candidate_before(const Mark& end,
                                                                      RunListener& listener) {
  return find_candidate(timeline_, conditions(listener),
                        end.at.steps == 0 ? end : Mark{end.event, {end.at.stops, end.at.ticks + 1}});
}

Result<bool> StopSearch::is_left(const Mark& end, RunListener& listener) {
  const Mark here = timeline_.now();
  TRY_ASSIGN(const bool can_come_back, timeline_.checkpoint());
  if (!can_come_back) return true;
  TRY_ASSIGN(const auto candidate, find_candidate_before(end, listener));
  TRY(timeline_.seek(here));
  return candidate.has_value();
}

Result<std::optional<StopSearch::Hit>> StopSearch::last_in(const Mark& begin, const Mark& whole,
                                                           RunListener& listener) {
  Mark end = whole;
  TRY_ASSIGN(const auto known, last_known(begin, end, listener));
  if (known.has_value() || end <= begin) return known;
  TRY_ASSIGN(const auto mid, between(begin, end));
  if (!mid.has_value() && end.at.steps != 0 && end.at.steps < kFewSteps)
    return last_walked(begin, end, listener);
  TRY(timeline_.seek(begin));
  TRY(timeline_.checkpoint_for_search());
  TRY_ASSIGN(const auto candidate, find_candidate_before(end, listener));
  if (!candidate.has_value()) return std::optional<Hit>();
  if (!mid.has_value()) return last_walked(begin, end, listener);
  TRY_ASSIGN(const auto upper, last_in(*mid, end, listener));
  if (upper.has_value()) return upper;
  return last_in(begin, *mid, listener);
}

// Windows that grow: in this event, then over whole events.
Result<std::optional<StopSearch::Hit>> StopSearch::last_before(const Mark& floor, const Mark& end,
                                                               RunListener& listener) {
  std::optional<Hit> none;
  if (!is_looking()) return none;
  if (floor.without_steps() == end.without_steps()) return last_walked(floor, end, listener);
  Mark reached = end;
  const auto look = [&](const Mark& begin) -> Result<std::optional<Hit>> {
    // What a vCPU completes with its ticket is before the first place in the event after it: that, not the
    // event's beginning, is where the window before ends.
    TRY(timeline_.seek(std::max(begin, floor)));
    const Mark window = timeline_.now();
    if (window >= reached) return none;
    TRY_ASSIGN(const auto hit, last_in(window, reached, listener));
    reached = window;
    return hit;
  };
  for (uint64_t back = 1; back < end.at.sum() && reached > floor; back *= kWindowGrowth) {
    TRY_ASSIGN(const Mark begin, seek_sum(end.event, end.at.sum() - back));
    TRY_ASSIGN(const auto hit, look(begin));
    if (hit.has_value()) return hit;
    const auto vcpu = timeline_.owner_of(end.event);
    TRY(timeline_.seek({end.event}));
    if (!vcpu.has_value() || reached <= timeline_.now()) break;
  }
  for (uint64_t back = 0; back < end.event && reached > floor;
       back = std::max<uint64_t>(1, back * kWindowGrowth)) {
    TRY_ASSIGN(const auto hit, look({end.event - back}));
    if (hit.has_value()) return hit;
  }
  return look(floor);
}

Result<StopEvent> StopSearch::run_backward(RunListener& listener) {
  TRY_ASSIGN(const auto hit, last_before(begin_, timeline_.now(), listener));
  TRY(timeline_.seek(hit.has_value() ? hit->mark : begin_));
  return hit.has_value() ? hit->stop : stop_here(StopReason::kBegin);
}

// From here on, in this event, which is the vCPU's.
Result<std::vector<StopSearch::Completion>> StopSearch::completions(const Mark& end) {
  std::vector<Completion> found;
  const uint64_t event = timeline_.now().event;
  while (!timeline_.at_end() && timeline_.now().event == event && timeline_.now() < end) {
    const Mark before = timeline_.now();
    TRY_ASSIGN(const bool completed, timeline_.step());
    if (!completed || timeline_.now() > end) continue;
    found.push_back({before, timeline_.now()});
    if (found.size() > 2) found.erase(found.begin());
  }
  return found;
}

Result<std::vector<StopSearch::Completion>> StopSearch::last_completions(VcpuId vcpu, const Mark& end) {
  std::vector<Completion> later;  // in events behind the one that is looked at
  constexpr uint64_t kNear = 3;
  if (timeline_.owner_of(end.event) == vcpu && end.at.steps >= kNear) {
    TRY(timeline_.seek({end.event, {end.at.stops, end.at.ticks, end.at.steps - kNear}}));
    TRY_ASSIGN(later, completions(end));
    if (later.size() == 2) return later;
    later.clear();
  }
  for (uint64_t event = end.event; event >= 1 && later.size() < 2; --event) {
    if (timeline_.owner_of(event) != vcpu) continue;
    if (event != end.event) TRY(timeline_.seek({event + 1}));
    const uint64_t sum = event == end.event ? end.at.sum() : sum_of(vcpu);
    bool whole = false;
    std::vector<Completion> found;
    TRY(timeline_.seek({event}));
    const uint64_t begin_sum = timeline_.now().at.sum();
    for (uint64_t back = 1; !whole && found.size() + later.size() < 2; back *= kWindowGrowth) {
      whole = back >= sum || begin_sum >= sum - back;
      TRY(timeline_.seek_sum(event, whole ? 0 : sum - back));
      if (timeline_.now().event != event) continue;
      TRY_ASSIGN(found, completions(end));
    }
    later.insert(later.begin(), found.begin(), found.end());
  }
  return later;
}

// Where this vCPU has its first turn.
Mark StopSearch::first_of(VcpuId vcpu) const {
  uint64_t event = begin_.event;
  while (event < timeline_.end_event() && timeline_.owner_of(event) != vcpu) ++event;
  return event == begin_.event ? begin_ : Mark{event};
}

// Where it comes to: at once after the instruction before, so that as many steps forward lead back.
Result<StopEvent> StopSearch::step_backward(VcpuId vcpu, RunListener& listener) {
  const Mark target = timeline_.now();
  TRY_ASSIGN(const auto done, last_completions(vcpu, target));
  if (done.empty()) {
    TRY(timeline_.seek(begin_));
    return stop_here(StopReason::kBegin);
  }
  // Before its first instruction: one place, whatever of it was missing and fetched before it was completed.
  const Mark mark = done.size() == 1 ? first_of(vcpu) : done[done.size() - 2].after;
  ignored_ = vcpu;
  const auto hit = last_before(mark, target, listener);
  ignored_.reset();
  if (!hit) return tl::unexpected(hit.error());
  if (hit->has_value()) {
    TRY(timeline_.seek((*hit)->mark));
    return (*hit)->stop;
  }
  TRY(timeline_.seek(mark));
  StopEvent stop = stop_here(StopReason::kStep);
  stop.vcpu = vcpu;
  return stop;
}

}  // namespace reprise::replay
