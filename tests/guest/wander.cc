// wander: what a debugger does to a recording, at random: steps and steps back of any vCPU, breakpoints and
// watchpoints in both directions, seeks, diversions with changed registers and memory.
//
//   wander RECORDING OPERATIONS SEED
//
// After each operation the machine must have the digest of a second replay that came to the same mark by
// nothing but seeks; as many steps forward as back must be no movement; and the end must be the recorded one.
// Prints one line of figures. Exit status: 0; 10 a digest differs or a replay diverges; 1 any other failure.
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <random>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "replay/debug/next_instruction.h"
#include "replay/gdb/timeline_target.h"
#include "tests/guest/tool.h"
#include "vmm/host/host_profile.h"

namespace reprise {
namespace {

using replay::Mark;
using replay::gdb::Direction;

class Wanderer {
 public:
  Wanderer(replay::Timeline& timeline, replay::gdb::TimelineTarget& target, replay::Timeline& reference,
           uint64_t seed)
      : timeline_(timeline), target_(target), reference_(reference), random_(seed) {}

  Status operate() {
    switch (random_() % 11) {
      case 0:
        return seek();
      case 1:
        return run(Direction::kForward);
      case 2:
        return run(Direction::kBackward);
      case 3:
      case 4:
        return there_and_back();
      case 5:
      case 6:
        return watch();
      case 7:
        return divert();
      default:
        return step(random_() % 2 == 0 ? Direction::kForward : Direction::kBackward);
    }
  }

  Status compare() {
    TRY(reference_.seek(target_.now()));
    TRY_ASSIGN(const uint64_t found, timeline_.digest());
    TRY_ASSIGN(const uint64_t expected, reference_.digest());
    if (reference_.now() == target_.now() && found == expected) return {};
    return fail(ErrorCode::kDivergence, "after {}: at {}, digest {:016x}; sought, at {}: {:016x}", last_,
                to_text(target_.now()), found, to_text(reference_.now()), expected);
  }

  [[nodiscard]] std::string figures() const {
    return fmt::format(
        "steps={} back={} runs={} back={} hits={} seeks={} there-and-back={} watched={} diverted={} ended={}",
        counts_[0], counts_[1], counts_[2], counts_[3], counts_[4], counts_[5], counts_[6], counts_[7],
        counts_[8], counts_[9]);
  }

 private:
  VcpuId any_vcpu() { return VcpuId(static_cast<uint32_t>(random_() % target_.vcpu_count())); }

  Status seek() {
    ++counts_[5];
    const Mark end = target_.end();
    last_ = "seek";
    return target_.seek({1 + random_() % (end.event - 1),
                         {random_() % 3 == 0 ? random_() % 100 : 0, Ticks(0), random_() % 5}},
                        patience_);
  }

  Status step(Direction direction) {
    ++counts_[direction == Direction::kForward ? 0 : 1];
    last_ = direction == Direction::kForward ? "step" : "reverse-step";
    TRY(target_.step(any_vcpu(), direction, patience_));
    return {};
  }

  // Wants a stop in four, by what is in its registers. In a loop that waits they are the same each time:
  // gives up, as a person with Ctrl-C, after so many stops that it did not want.
  class Picky final : public replay::RunListener {
   public:
    explicit Picky(const replay::gdb::TimelineTarget& target) : target_(target) {}
    bool interrupted() override { return asked_ > kMostAsked; }
    bool wants(const replay::StopEvent& stop) override {
      ++asked_;
      const auto registers = target_.registers(stop.vcpu);
      if (!registers) return true;
      const auto& general = registers->general;
      return (general.rax + general.rbx + general.rcx + general.rdx + general.rsp / 8) % 4 == 0;
    }

   private:
    static constexpr uint64_t kMostAsked = 2'000;
    const replay::gdb::TimelineTarget& target_;
    uint64_t asked_ = 0;
  };

  // To a place that some vCPU was at: a breakpoint there, with a condition every other time. Forward, and it
  // is the last one before the instruction behind it.
  Status run(Direction direction) {
    ++counts_[direction == Direction::kForward ? 2 : 3];
    last_ = direction == Direction::kForward ? "continue" : "reverse-continue";
    const Mark start = target_.now();
    TRY(target_.seek({1 + random_() % (target_.end().event - 1), {0, Ticks(0), random_() % 10}}, patience_));
    TRY_ASSIGN(const auto registers, target_.registers(timeline_.turn().value_or(VcpuId(0))));
    const replay::Breakpoint breakpoint{
        .kind = replay::BreakpointKind::kSoftware, .address = Gva(registers.general.rip), .length = 0};
    TRY(target_.seek(start, patience_));
    std::vector<bool> stood_there;
    for (VcpuId vcpu; vcpu.raw < target_.vcpu_count(); ++vcpu) {
      TRY_ASSIGN(const auto at_start, target_.registers(vcpu));
      stood_there.push_back(at_start.general.rip == breakpoint.address.raw);
    }
    TRY(target_.insert(breakpoint));
    Picky picky(target_);
    replay::RunListener& listener = random_() % 2 == 0 ? static_cast<replay::RunListener&>(picky) : patience_;
    TRY_ASSIGN(const auto stop, target_.resume(direction, VcpuId(0), listener));
    if (stop.reason == replay::StopReason::kBreakpoint) ++counts_[4];
    // One that has stood there before has come there before.
    if (stop.reason == replay::StopReason::kBreakpoint && !stood_there[stop.vcpu.raw]) {
      const Mark there = target_.now();
      const uint64_t turn = there.event;
      TRY_ASSIGN(const auto stepped, target_.step(stop.vcpu, Direction::kForward, patience_));
      if (stepped.reason == replay::StopReason::kStep && target_.now().event == turn) {
        const Mark behind = target_.now();
        TRY_ASSIGN(const auto back, target_.resume(Direction::kBackward, VcpuId(0), listener));
        if (target_.now() != there && back.reason != replay::StopReason::kInterrupted)
          return fail(ErrorCode::kDivergence,
                      "a breakpoint at {:#x}{} is hit at {} from {}, vCPU {}, and backwards at {} from {}",
                      registers.general.rip, &listener == &patience_ ? "" : " with a condition",
                      to_text(there), to_text(start), stop.vcpu.raw, to_text(target_.now()), to_text(behind));
      }
    }
    return target_.remove(breakpoint);
  }

  Status there_and_back() {
    last_ = "steps back and forth";
    const VcpuId vcpu = any_vcpu();
    // To where an instruction of it has just been completed.
    TRY_ASSIGN(const auto first, target_.step(vcpu, Direction::kForward, patience_));
    if (first.reason == replay::StopReason::kEnd) return {};
    const Mark start = target_.now();
    const uint64_t steps = 1 + random_() % 5;
    uint64_t done = 0;
    std::string path = to_text(start);
    for (; done < steps; ++done) {
      TRY_ASSIGN(const auto stop, target_.step(vcpu, Direction::kBackward, patience_));
      path += " < " + to_text(target_.now());
      if (stop.reason == replay::StopReason::kBegin) return {};
    }
    for (; done > 0; --done) {
      TRY(target_.step(vcpu, Direction::kForward, patience_));
      path += " > " + to_text(target_.now());
    }
    ++counts_[6];
    if (target_.now() == start) return {};
    return fail(ErrorCode::kDivergence, "{} steps of vCPU {} back and forward again do not lead back: {}",
                steps, vcpu.raw, path);
  }

  // What some vCPU accesses somewhere: the next access from here, the same one back from behind it, and no
  // other write in between.
  Status watch() {
    last_ = "watch";
    const Mark start = target_.now();
    TRY(target_.seek({1 + random_() % (target_.end().event - 1), {0, Ticks(0), random_() % 10}}, patience_));
    const VcpuId vcpu = timeline_.turn().value_or(VcpuId(0));
    TRY_ASSIGN(const auto touches, replay::next_touches(timeline_.machine(), vcpu));
    TRY(target_.seek(start, patience_));
    if (touches.empty() || touches[0].bytes > kMostBytes) return {};
    constexpr std::array kKinds = {replay::BreakpointKind::kWrite, replay::BreakpointKind::kRead,
                                   replay::BreakpointKind::kAccess};
    const replay::Breakpoint watchpoint{
        .kind = kKinds[random_() % kKinds.size()], .address = touches[0].linear, .length = touches[0].bytes};
    if (!target_.insert(watchpoint)) return {};  // each vCPU has its own
    Status watched = watch(watchpoint, vcpu);
    TRY(target_.remove(watchpoint));
    return watched;
  }

  Status watch(const replay::Breakpoint& watchpoint, VcpuId vcpu) {
    const Mark start = target_.now();
    const auto bytes = [&] {
      std::vector<uint8_t> found(watchpoint.length);
      found.resize(target_.read(vcpu, watchpoint.address, found));
      return found;
    };
    const auto before = bytes();
    TRY_ASSIGN(const auto stop, target_.resume(Direction::kForward, VcpuId(0), patience_));
    if (stop.reason != replay::StopReason::kWatchpoint) return {};
    ++counts_[7];
    const Mark after = target_.now();
    TRY_ASSIGN(const auto back, target_.resume(Direction::kBackward, VcpuId(0), patience_));
    const Mark access = target_.now();
    if (back.reason != replay::StopReason::kWatchpoint || back.vcpu != stop.vcpu || access < start ||
        access >= after)
      return fail(ErrorCode::kDivergence, "from {} {:#x} is accessed before {}; looked at from there, at {}",
                  to_text(start), watchpoint.address.raw, to_text(after), to_text(access));
    if (watchpoint.kind != replay::BreakpointKind::kRead && bytes() != before)
      return fail(ErrorCode::kDivergence, "the {} bytes at {:#x} have changed between {} and {}",
                  watchpoint.length, watchpoint.address.raw, to_text(start), to_text(access));
    TRY(target_.resume(Direction::kForward, VcpuId(0), patience_));
    if (target_.now() == after) return {};
    return fail(ErrorCode::kDivergence, "from {} the access to {:#x} is before {}, from {} before {}",
                to_text(start), watchpoint.address.raw, to_text(after), to_text(access),
                to_text(target_.now()));
  }

  // A fork in which anything may happen, changed in one register and one word; nothing may be left of it.
  Status divert() {
    ++counts_[8];
    last_ = "diversion";
    TRY(target_.begin_diversion());
    const VcpuId vcpu = any_vcpu();
    Status went = diverge(vcpu);
    // A guest that was changed at random may break.
    if (!went && went.error().code != ErrorCode::kGuest && went.error().code != ErrorCode::kUsage)
      return went;
    if (!went) ++counts_[9];
    return target_.end_diversion();
  }

  Status diverge(VcpuId vcpu) {
    class Impatience final : public replay::RunListener {
     public:
      bool interrupted() override { return monotonic_ns() - start_ > 20'000'000; }
      bool wants(const replay::StopEvent& /*stop*/) override { return true; }

     private:
      const uint64_t start_ = monotonic_ns();
    };
    if (random_() % 2 == 0) {
      TRY_ASSIGN(auto registers, target_.registers(vcpu));
      auto& general = registers.general;
      const std::array all = {&general.rax, &general.rbx, &general.rcx, &general.rdx, &general.rsi,
                              &general.rdi, &general.rbp, &general.r8,  &general.r9,  &general.r15};
      *all[random_() % all.size()] = random_();
      TRY(target_.set_registers(vcpu, registers));
    }
    if (random_() % 2 == 0) {
      const uint64_t word = random_();
      const Gpa address((random_() % (timeline_.machine().memory().pages() * kPageSize)) & ~7ull);
      TRY(target_.write_physical(address, {reinterpret_cast<const uint8_t*>(&word), sizeof word}));
    }
    for (uint64_t steps = random_() % 20; steps > 0; --steps) {
      Impatience listener;
      TRY(target_.step(vcpu, Direction::kForward, listener));
    }
    TRY_ASSIGN(const auto registers, target_.registers(any_vcpu()));
    const replay::Breakpoint breakpoint{
        .kind = replay::BreakpointKind::kSoftware, .address = Gva(registers.general.rip), .length = 0};
    TRY(target_.insert(breakpoint));
    for (int resumed = 0; resumed < 2; ++resumed) {
      Impatience listener;
      const auto stop = target_.resume(Direction::kForward, any_vcpu(), listener);
      if (stop) continue;
      TRY(target_.remove(breakpoint));
      return tl::unexpected(stop.error());
    }
    return target_.remove(breakpoint);
  }

  static constexpr uint64_t kMostBytes = 64;
  replay::Timeline& timeline_;
  replay::gdb::TimelineTarget& target_;
  replay::Timeline& reference_;
  std::mt19937_64 random_;
  Patience patience_;
  std::string last_;
  std::array<uint64_t, 10> counts_{};
};

Status wander(const char* folder, uint64_t operations, uint64_t seed) {
  TRY_ASSIGN(const auto recording, log::Recording::open(folder));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  replay::TimelineOptions options;
  options.views = vmm::best_views();
  options.checkpoint_every_ns = 20'000'000;
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, options));
  TRY_ASSIGN(const auto reference, replay::Timeline::open(*kvm, recording, options));
  TRY_ASSIGN(const auto target, replay::gdb::TimelineTarget::create(*timeline, recording));
  const uint64_t start = monotonic_ns();
  Wanderer wanderer(*timeline, *target, *reference, seed);
  for (uint64_t i = 0; i < operations; ++i) {
    TRY(wanderer.operate());
    TRY(wanderer.compare());
  }
  TRY(timeline->run_to_end());
  TRY(timeline->finish());
  fmt::print("operations={} identical ms={} {}\n", operations, (monotonic_ns() - start) / 1'000'000,
             wanderer.figures());
  return {};
}

int run(int argc, char** argv) {
  const auto operations = argc == 4 ? number(argv[2]) : std::nullopt;
  const auto seed = argc == 4 ? number(argv[3]) : std::nullopt;
  if (!operations || !seed) {
    fmt::print(stderr, "usage: wander RECORDING OPERATIONS SEED\n");
    return 1;
  }
  const Status wandered = wander(argv[1], *operations, *seed);
  if (wandered) return 0;
  fmt::print(stderr, "wander: {}\n", wandered.error().message);
  return wandered.error().code == ErrorCode::kDivergence ? 10 : 1;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  return reprise::run(argc, argv);
}
