#include "replay/timeline_target.h"

#include <algorithm>
#include <cstring>

#include "log/event_text.h"
#include "vmm/linear_memory.h"

namespace reprise::replay {
namespace {

constexpr uint64_t kWindowGrowth = 4;

tl::unexpected<Error> no_diversions() {
  return fail(ErrorCode::kUsage, "a recording cannot be changed; diversions are not supported yet");
}

// The nearest mark before `mark` that may be another position of the same vCPU.
Mark one_tick_before(const Mark& mark) {
  return {mark.event, mark.stops, mark.ticks == 0 ? 0 : mark.ticks - 1, 0};
}

}  // namespace

Result<std::unique_ptr<TimelineTarget>> TimelineTarget::create(Timeline& timeline,
                                                               const log::Recording& recording) {
  if (timeline.machine().has_board())
    return fail(ErrorCode::kUsage,
                "recordings of Linux guests cannot be debugged yet; those of bare-metal images can");
  return std::unique_ptr<TimelineTarget>(new TimelineTarget(timeline, recording));
}

// --- the machine at this moment ---

std::string TimelineTarget::vcpu_state(VcpuId vcpu) const {
  const auto turn = timeline_.turn();
  if (turn == vcpu) return "its turn";
  return timeline_.machine().vcpu(vcpu).is_halted() ? "halted" : "not its turn";
}

Result<gdb::Registers> TimelineTarget::registers(VcpuId vcpu) const {
  constexpr uint32_t kKernelGsBase = 0xc0000102;  // Intel SDM vol. 4, table 2-2
  constexpr size_t kAvx = 576;                    // Intel SDM vol. 1, 13.4.2 and 13.4.3
  vmm::KvmVcpu& kvm = timeline_.machine().kvm(vcpu);
  gdb::Registers registers;
  TRY_ASSIGN(registers.general, kvm.registers());
  TRY_ASSIGN(registers.special, kvm.special_registers());
  if (const auto base = kvm.msr(kKernelGsBase)) registers.kernel_gs_base = *base;
  TRY_ASSIGN(const auto xsave, kvm.xsave());
  std::copy_n(xsave.begin(), registers.fxsave.size(), registers.fxsave.begin());
  constexpr uint64_t kOsXsave = 1 << 18;
  if ((registers.special.cr4 & kOsXsave) == 0) return registers;
  registers.ymm_high.emplace();
  std::memcpy(registers.ymm_high->data(), xsave.data() + kAvx, sizeof *registers.ymm_high);
  return registers;
}

size_t TimelineTarget::read(VcpuId vcpu, Gva address, std::span<uint8_t> out) const {
  const auto sregs = timeline_.machine().kvm(vcpu).special_registers();
  if (!sregs) return 0;
  const vmm::WholeMemory physical(timeline_.machine(), vcpu);
  return vmm::LinearMemory(*sregs, physical).read(address, out);
}

size_t TimelineTarget::read_physical(Gpa address, std::span<uint8_t> out) const {
  const vmm::WholeMemory physical(timeline_.machine(), VcpuId(0));
  size_t done = 0;
  while (done < out.size()) {
    const Gpa at = address + done;
    const size_t part = std::min<size_t>(out.size() - done, kPageSize - (at.raw & (kPageSize - 1)));
    if (!physical.read(at, out.subspan(done, part))) break;
    done += part;
  }
  return done;
}

std::optional<Gpa> TimelineTarget::translate(VcpuId vcpu, Gva address) const {
  const auto sregs = timeline_.machine().kvm(vcpu).special_registers();
  if (!sregs) return std::nullopt;
  const vmm::WholeMemory physical(timeline_.machine(), vcpu);
  return vmm::LinearMemory(*sregs, physical).translate(address);
}

Result<Gva> TimelineTarget::rip(VcpuId vcpu) const {
  TRY_ASSIGN(const kvm_regs regs, timeline_.machine().kvm(vcpu).registers());
  return Gva(regs.rip);
}

// --- moving ---

gdb::StopEvent TimelineTarget::stop_here(gdb::StopReason reason) const {
  return {.reason = reason, .vcpu = timeline_.turn().value_or(VcpuId(0)), .hit = {}, .accessed = {}};
}

std::set<Gva> TimelineTarget::addresses() const {
  std::set<Gva> addresses;
  for (const auto& breakpoint : breakpoints_) addresses.insert(breakpoint.address);
  return addresses;
}

template <typename Run>
Result<gdb::StopEvent> TimelineTarget::interruptibly(gdb::Interruption& interruption, Run run) {
  const Mark start = timeline_.now();
  interrupted_ = false;
  timeline_.set_interruption([&] { return interrupted_ = interruption.interrupted(); });
  Result<gdb::StopEvent> stop = run();
  timeline_.set_interruption({});
  if (stop) return stop;
  // Whatever went wrong, the machine must stand somewhere.
  if (timeline_.is_astray()) TRY(timeline_.seek(interrupted_ ? timeline_.now().without_steps() : start));
  if (interrupted_) return stop_here(gdb::StopReason::kInterrupted);
  return stop;
}

Status TimelineTarget::seek(const Mark& mark, gdb::Interruption& interruption) {
  if (mark > end())
    return fail(ErrorCode::kUsage, "{} is not in the recording, which goes from {} to {}", to_text(mark),
                to_text(begin()), to_text(end()));
  TRY_ASSIGN(const auto stop, interruptibly(interruption, [&]() -> Result<gdb::StopEvent> {
               TRY(timeline_.seek(mark));
               return stop_here(gdb::StopReason::kStep);
             }));
  if (stop.reason == gdb::StopReason::kInterrupted)
    return fail(ErrorCode::kUsage, "interrupted at {}", to_text(now()));
  return {};
}

Result<gdb::StopEvent> TimelineTarget::resume(gdb::Direction direction, gdb::RunListener& listener) {
  return interruptibly(listener, [&] {
    return direction == gdb::Direction::kForward ? run_forward(listener) : run_backward(listener);
  });
}

Result<gdb::StopEvent> TimelineTarget::step(VcpuId vcpu, gdb::Direction direction,
                                            gdb::RunListener& listener) {
  return interruptibly(listener, [&] {
    return direction == gdb::Direction::kForward ? step_forward(vcpu, listener) : step_backward(vcpu);
  });
}

Result<bool> TimelineTarget::arrive(const Mark& end) {
  const Mark begin = timeline_.now();
  TRY_ASSIGN(const auto sighting, timeline_.look_for(addresses(), end));
  if (!sighting.has_value()) return false;
  // In the middle of a safepoint the clock is ahead of the position: one tick earlier is early enough.
  TRY(timeline_.seek(std::max(begin, one_tick_before(sighting->mark))));
  const auto vcpu = timeline_.owner_of(sighting->mark.event);
  const Mark late{sighting->mark.event, sighting->mark.stops, sighting->mark.ticks + 1, 0};
  while (!timeline_.at_end() && timeline_.now() < late && timeline_.now() < end) {
    TRY_ASSIGN(const Gva at, rip(*vcpu));
    if (timeline_.turn() == vcpu && at == sighting->address) return true;
    TRY(timeline_.step());
  }
  // Where single steps do not lead: the first place behind it.
  return timeline_.now() < end;
}

// All repetitions of it.
Status TimelineTarget::leave_instruction() {
  const auto vcpu = timeline_.turn();
  if (!vcpu.has_value()) return {};
  TRY_ASSIGN(const Gva before, rip(*vcpu));
  for (Gva at = before; at == before && timeline_.turn() == vcpu;) {
    TRY(timeline_.step());
    TRY_ASSIGN(at, rip(*vcpu));
  }
  return {};
}

Result<TimelineTarget::Stop> TimelineTarget::next_hit(const Mark& end, gdb::RunListener& listener) {
  while (!breakpoints_.empty() && timeline_.now() < end) {
    const Mark begin = timeline_.now();
    TRY_ASSIGN(const bool found, arrive(end));
    if (!found) {
      TRY(timeline_.seek(std::max(begin, end)));
      return Stop();
    }
    gdb::StopEvent stop = stop_here(gdb::StopReason::kBreakpoint);
    TRY_ASSIGN(const Gva at, rip(stop.vcpu));
    const auto hit =
        std::ranges::find_if(breakpoints_, [&](const auto& breakpoint) { return breakpoint.address == at; });
    if (hit != breakpoints_.end()) stop.hit = *hit;
    if (hit == breakpoints_.end() || listener.wants(stop)) return Stop(stop);
    TRY(leave_instruction());
  }
  TRY(timeline_.seek(std::max(timeline_.now(), end)));
  return Stop();
}

Result<gdb::StopEvent> TimelineTarget::run_forward(gdb::RunListener& listener) {
  TRY_ASSIGN(const Stop hit, next_hit(end(), listener));
  return hit.has_value() ? *hit : stop_here(gdb::StopReason::kEnd);
}

Result<TimelineTarget::Stop> TimelineTarget::last_hit(const Mark& begin, const Mark& end,
                                                      gdb::RunListener& listener) {
  TRY(timeline_.seek(begin));
  std::optional<std::pair<Mark, gdb::StopEvent>> last;
  while (timeline_.now() < end) {
    TRY_ASSIGN(const Stop hit, next_hit(end, listener));
    if (!hit.has_value() || !(timeline_.now() < end)) break;
    last = {timeline_.now(), *hit};
    TRY(leave_instruction());
  }
  if (!last.has_value()) return Stop();
  TRY(timeline_.seek(last->first));
  return Stop(last->second);
}

Result<gdb::StopEvent> TimelineTarget::run_backward(gdb::RunListener& listener) {
  const Mark target = timeline_.now();
  std::vector<Mark> begins;
  for (uint64_t back = 1; back < target.ticks; back *= kWindowGrowth)
    begins.push_back({target.event, target.stops, target.ticks - back, 0});
  for (uint64_t back = 0; back < target.stops; back = std::max<uint64_t>(1, back * kWindowGrowth))
    begins.push_back({target.event, target.stops - back, 0, 0});
  for (uint64_t back = 0; back < target.event; back = std::max<uint64_t>(1, back * kWindowGrowth))
    begins.push_back({target.event - back, 0, 0, 0});
  begins.push_back(begin_);
  Mark end = target;
  for (const Mark& begin : begins) {
    if (breakpoints_.empty()) break;
    TRY(timeline_.seek(std::max(begin, begin_)));
    const Mark reached = timeline_.now();
    if (reached >= end) continue;
    TRY_ASSIGN(const Stop hit, last_hit(reached, end, listener));
    if (hit.has_value()) return *hit;
    end = reached;
  }
  TRY(timeline_.seek(begin_));
  return stop_here(gdb::StopReason::kBegin);
}

Result<gdb::StopEvent> TimelineTarget::step_forward(VcpuId vcpu, gdb::RunListener& listener) {
  while (!timeline_.at_end()) {
    if (timeline_.turn() != vcpu) {
      uint64_t event = timeline_.now().event;
      while (event < timeline_.end_event() && timeline_.owner_of(event) != vcpu) ++event;
      TRY_ASSIGN(const Stop hit, next_hit({event, 0, 0, 0}, listener));
      if (hit.has_value()) return *hit;
      continue;
    }
    TRY_ASSIGN(const bool completed, timeline_.step());
    if (!completed) continue;
    gdb::StopEvent stop = stop_here(gdb::StopReason::kStep);
    stop.vcpu = vcpu;
    return stop;
  }
  return stop_here(gdb::StopReason::kEnd);
}

Result<std::optional<Mark>> TimelineTarget::last_instruction(VcpuId vcpu, const Mark& begin,
                                                             const Mark& end) {
  TRY(timeline_.seek(begin));
  std::optional<Mark> last;
  while (!timeline_.at_end() && timeline_.now() < end) {
    const Mark before = timeline_.now();
    const bool mine = timeline_.turn() == vcpu;
    TRY_ASSIGN(const bool completed, timeline_.step());
    if (mine && completed) last = before;
  }
  return last;
}

// In the event that `end` is in, which is one of this vCPU's. From near its end, then from further away.
Result<std::optional<Mark>> TimelineTarget::last_instruction_of_event(VcpuId vcpu, const Mark& end) {
  constexpr uint64_t kStopsBack = 8;
  for (uint64_t back = 0; back < std::min(end.stops + 1, kStopsBack); ++back) {
    const Mark begin{end.event, end.stops - back, one_tick_before(end).ticks, 0};
    TRY_ASSIGN(const auto found, last_instruction(vcpu, begin, end));
    if (found.has_value()) return found;
  }
  return last_instruction(vcpu, {end.event, 0, 0, 0}, end);
}

Result<gdb::StopEvent> TimelineTarget::step_backward(VcpuId vcpu) {
  const Mark target = timeline_.now();
  std::optional<Mark> found;
  for (uint64_t event = target.event; event >= 1 && !found.has_value(); --event) {
    if (timeline_.owner_of(event) != vcpu) continue;
    Mark last = target;
    if (event != target.event) {
      // Its last position before the next event.
      TRY(timeline_.seek({event, 0, 0, 0}));
      last = {event, 0, 0, 0};
      while (!timeline_.at_end() && timeline_.now().event == event) {
        last = timeline_.now();
        TRY(timeline_.advance(std::nullopt));
      }
      const Mark end{event + 1, 0, 0, 0};
      // That is its last stop, and may be long ago: from the last tick before the event was over, first.
      const Position after = timeline_.machine().vcpu(vcpu).position();
      const uint64_t back = after.stops == last.stops ? 1 : 0;
      Mark near = last;
      near.ticks = std::max(last.ticks, after.ticks.raw - std::min(after.ticks.raw, back));
      if (near != last) {
        TRY_ASSIGN(found, last_instruction(vcpu, near, std::min(end, target)));
      }
      if (found.has_value()) break;
      TRY_ASSIGN(found, last_instruction(vcpu, last, std::min(end, target)));
      if (found.has_value()) break;
    }
    TRY_ASSIGN(found, last_instruction_of_event(vcpu, last));
  }
  TRY(timeline_.seek(found.value_or(begin_)));
  if (!found.has_value()) return stop_here(gdb::StopReason::kBegin);
  gdb::StopEvent stop = stop_here(gdb::StopReason::kStep);
  stop.vcpu = vcpu;
  return stop;
}

Status TimelineTarget::insert(const gdb::Breakpoint& breakpoint) {
  if (breakpoint.is_watchpoint()) return fail(ErrorCode::kHost, "watchpoints are not supported yet");
  breakpoints_.insert(breakpoint);
  return {};
}

Status TimelineTarget::remove(const gdb::Breakpoint& breakpoint) {
  breakpoints_.erase(breakpoint);
  return {};
}

// --- diversions ---

Status TimelineTarget::begin_diversion() {
  return no_diversions();
}
Status TimelineTarget::set_registers(VcpuId /*vcpu*/, const gdb::Registers& /*registers*/) {
  return no_diversions();
}
Status TimelineTarget::write(VcpuId /*vcpu*/, Gva /*address*/, std::span<const uint8_t> /*bytes*/) {
  return no_diversions();
}
Status TimelineTarget::write_physical(Gpa /*address*/, std::span<const uint8_t> /*bytes*/) {
  return no_diversions();
}

// --- what only a recording can answer ---

Result<gdb::Checkpoint> TimelineTarget::make_checkpoint() {
  TRY(timeline_.checkpoint());
  checkpoints_.push_back({static_cast<uint32_t>(checkpoints_.size() + 1), now()});
  return checkpoints_.back();
}

Result<std::string> TimelineTarget::owners(PageNumber page) {
  std::string text;
  for (VcpuId vcpu; vcpu.raw < vcpu_count(); ++vcpu) {
    const ept::View& view = timeline_.machine().view(vcpu);
    if (view.is_exempt(page)) return fmt::format("page {:#x}: each vCPU has its own\n", page.raw);
    const Right right = view.right(page);
    if (right != Right::kNone)
      text += fmt::format("page {:#x}: vCPU {} may {} it\n", page.raw, vcpu.raw,
                          right == Right::kWrite ? "write" : "read");
  }
  return text.empty() ? fmt::format("page {:#x}: nobody\n", page.raw) : text;
}

Result<std::string> TimelineTarget::history(PageNumber page) {
  std::map<uint64_t, std::string> lines;
  for (VcpuId vcpu; vcpu.raw < vcpu_count(); ++vcpu) {
    TRY_ASSIGN(auto reader, recording_.open_log(vcpu));
    for (;;) {
      TRY_ASSIGN(const auto event, reader.next());
      if (!event.has_value()) break;
      const auto* gain = std::get_if<log::Gain>(&event->what);
      const auto* loss = std::get_if<log::Loss>(&event->what);
      const bool about_it = (loss != nullptr && loss->page.page == page) ||
                            (gain != nullptr && std::ranges::any_of(gain->pages, [&](const auto& step) {
                               return step.page == page;
                             }));
      if (!about_it) continue;
      const uint64_t ticket = ticket_of(*event)->raw;
      if (ticket < now().event) lines[ticket] = fmt::format("vCPU {}: {}\n", vcpu.raw, log::to_text(*event));
    }
  }
  std::string text;
  for (const auto& [ticket, line] : lines) text += line;
  return text.empty() ? fmt::format("page {:#x}: nobody has had it\n", page.raw) : text;
}

Result<std::string> TimelineTarget::who_wrote(Gpa /*address*/, gdb::Interruption& /*interruption*/) {
  return fail(ErrorCode::kUsage, "who-wrote is not supported yet; 'monitor history' says who held the page");
}

Result<std::string> TimelineTarget::log(uint32_t count) {
  std::map<uint64_t, std::string> lines;
  const uint64_t at = now().event;
  for (VcpuId vcpu; vcpu.raw < vcpu_count(); ++vcpu) {
    TRY_ASSIGN(auto reader, recording_.open_log(vcpu));
    for (;;) {
      TRY_ASSIGN(const auto event, reader.next());
      if (!event.has_value()) break;
      const auto taken = ticket_of(*event);
      if (!taken.has_value()) continue;
      const uint64_t ticket = taken->raw;
      if (ticket + count / 2 < at || ticket >= at + (count + 1) / 2) continue;
      lines[ticket] =
          fmt::format("{} vCPU {}: {}\n", ticket == at ? '>' : ' ', vcpu.raw, log::to_text(*event));
    }
  }
  std::string text;
  for (const auto& [ticket, line] : lines) text += line;
  return text.empty() ? "no transitions are near\n" : text;
}

Result<std::string> TimelineTarget::digest() {
  TRY_ASSIGN(const uint64_t digest, timeline_.digest());
  return fmt::format("{:016x}\n", digest);
}

}  // namespace reprise::replay
