// debug_costs: what going to and fro in a recording costs, without GDB.
//
//   debug_costs RECORDING SEED
//
// Prints one JSON object, all times in nanoseconds. Exit status: 0; 1 a failure.
#include <fmt/format.h>

#include <algorithm>
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
using replay::StopReason;
using replay::gdb::Direction;

constexpr int kPlaces = 10;
constexpr int kStepsToAWrite = 100;
constexpr int kStepsAtAPlace = 10;
constexpr int kSeeks = 30;
constexpr int kBootSteps = 5;  // to an instruction of the boot code, which is never executed again
// In no page table: nothing is planted, and everything is searched.
constexpr Gva kNowhere{0xffff'ffff'ffff'f000};

template <typename Work>
Result<uint64_t> time(Work work) {
  const uint64_t start = monotonic_ns();
  TRY(work());
  return monotonic_ns() - start;
}

std::string half_and_most(std::vector<uint64_t> times) {
  std::ranges::sort(times);
  const size_t last = times.size() - 1;
  return fmt::format(R"({{"p50": {}, "p99": {}, "most": {}, "count": {}}})", times[last / 2],
                     times[last * 99 / 100], times[last], times.size());
}

class Costs {
 public:
  Costs(replay::Timeline& timeline, replay::gdb::TimelineTarget& target, uint64_t seed)
      : timeline_(timeline), target_(target), random_(seed) {}

  // In this order: what has been made on the way helps later.
  Status measure() {
    TRY_ASSIGN(const Gva address, in_boot_code());
    TRY(ends());
    TRY(seeks());
    TRY(steps());
    TRY(watches());
    TRY(searches(address));
    return {};
  }

  [[nodiscard]] const std::string& json() const { return json_; }

 private:
  void add(std::string_view name, std::string_view value) {
    json_ += fmt::format(", \"{}\": {}", name, value);
  }
  void add(std::string_view name, uint64_t value) { add(name, fmt::format("{}", value)); }

  Mark anywhere() { return {1 + random_() % (target_.end().event - 1), {random_() % 20}}; }

  Status go_to(const Mark& mark) { return target_.seek(mark, patience_); }

  Result<Gva> in_boot_code() {
    for (int i = 0; i < kBootSteps; ++i) TRY(target_.step(VcpuId(0), Direction::kForward, patience_));
    TRY_ASSIGN(const auto registers, target_.registers(VcpuId(0)));
    return Gva(registers.general.rip);
  }

  Status ends() {
    TRY_ASSIGN(const uint64_t first, time([&] { return go_to(target_.end()); }));
    TRY_ASSIGN(const uint64_t back, time([&] { return go_to(target_.begin()); }));
    TRY_ASSIGN(const uint64_t again, time([&] { return go_to(target_.end()); }));
    add("first_to_end", first);
    add("to_begin", back);
    add("to_end", again);
    return {};
  }

  Status seeks() {
    std::vector<uint64_t> sought, made;
    for (int i = 0; i < kSeeks; ++i) {
      const Mark mark = anywhere();
      TRY_ASSIGN(const uint64_t took, time([&] { return go_to(mark); }));
      sought.push_back(took);
      const size_t before = timeline_.checkpoints_made();
      TRY_ASSIGN(const uint64_t making, time([&]() -> Status {
                   TRY(timeline_.checkpoint());
                   return {};
                 }));
      if (timeline_.checkpoints_made() != before) made.push_back(making);
    }
    add("seek", half_and_most(sought));
    if (!made.empty()) add("checkpoint", half_and_most(made));
    add("checkpoints", timeline_.checkpoints().size());
    add("checkpoint_bytes", timeline_.checkpoint_bytes());
    return {};
  }

  Status steps() {
    std::vector<uint64_t> forward, backward;
    for (int place = 0; place < kPlaces; ++place) {
      TRY(go_to(anywhere()));
      const VcpuId vcpu = timeline_.turn().value_or(VcpuId(0));
      const auto several = [&](Direction direction, std::vector<uint64_t>& times) -> Status {
        for (int i = 0; i < kStepsAtAPlace; ++i) {
          TRY_ASSIGN(const uint64_t took, time([&]() -> Status {
                       TRY(target_.step(vcpu, direction, patience_));
                       return {};
                     }));
          times.push_back(took);
        }
        return {};
      };
      TRY(several(Direction::kForward, forward));
      TRY(several(Direction::kBackward, backward));
    }
    add("step", half_and_most(forward));
    add("reverse_step", half_and_most(backward));
    return {};
  }

  // Back to the last write before some moment to what is written there.
  Status watches() {
    std::vector<uint64_t> times;
    for (int place = 0; place < kPlaces; ++place) {
      TRY(go_to(anywhere()));
      TRY_ASSIGN(const auto watchpoint, next_write());
      if (!watchpoint.has_value() || !target_.insert(*watchpoint)) continue;
      TRY_ASSIGN(const uint64_t took, time([&]() -> Status {
                   TRY(target_.resume(Direction::kBackward, VcpuId(0), patience_));
                   return {};
                 }));
      times.push_back(took);
      TRY(target_.remove(*watchpoint));
    }
    if (!times.empty()) add("watch", half_and_most(times));
    return {};
  }

  // By the vCPU whose turn it is, which is then behind it.
  Result<std::optional<replay::Breakpoint>> next_write() {
    std::optional<replay::Breakpoint> found;
    const VcpuId vcpu = timeline_.turn().value_or(VcpuId(0));
    for (int i = 0; i < kStepsToAWrite && !found.has_value(); ++i) {
      TRY_ASSIGN(const auto touches, replay::next_touches(timeline_.machine(), vcpu));
      for (const auto& touch : touches) {
        const bool is_shared =
            target_.translate(vcpu, touch.linear).has_value() &&
            !timeline_.machine().view(vcpu).is_exempt(page_of(*target_.translate(vcpu, touch.linear)));
        if (touch.writes && is_shared)
          found = {.kind = replay::BreakpointKind::kWrite, .address = touch.linear, .length = touch.bytes};
      }
      TRY(target_.step(vcpu, Direction::kForward, patience_));
    }
    return found;
  }

  Status searches(Gva address) {
    const auto from_the_end = [&](Gva where, StopReason expected) -> Result<uint64_t> {
      const replay::Breakpoint breakpoint{
          .kind = replay::BreakpointKind::kSoftware, .address = where, .length = 0};
      TRY(go_to(target_.end()));
      TRY(target_.insert(breakpoint));
      StopReason found = StopReason::kStep;
      TRY_ASSIGN(const uint64_t took, time([&]() -> Status {
                   TRY_ASSIGN(const auto stop, target_.resume(Direction::kBackward, VcpuId(0), patience_));
                   found = stop.reason;
                   return {};
                 }));
      TRY(target_.remove(breakpoint));
      if (found != expected)
        return fail(ErrorCode::kUsage, "the search for {:#x} ended at {} for another reason ({})", where.raw,
                    to_text(target_.now()), static_cast<int>(found));
      return took;
    };
    TRY_ASSIGN(const uint64_t hit, from_the_end(address, StopReason::kBreakpoint));
    add("reverse_continue", hit);
    TRY_ASSIGN(const uint64_t none, from_the_end(kNowhere, StopReason::kBegin));
    add("reverse_continue_no_hit", none);
    return {};
  }

  replay::Timeline& timeline_;
  replay::gdb::TimelineTarget& target_;
  std::mt19937_64 random_;
  Patience patience_;
  std::string json_;
};

Status measure(const char* folder, uint64_t seed) {
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(const auto recording, log::Recording::open(folder));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  replay::TimelineOptions options;
  options.views = vmm::best_views();
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, options));
  TRY_ASSIGN(const auto target, replay::gdb::TimelineTarget::create(*timeline, recording));
  const uint64_t opened = monotonic_ns() - start;
  Costs costs(*timeline, *target, seed);
  TRY(costs.measure());
  fmt::print("{{\"open\": {}{}}}\n", opened, costs.json());
  return {};
}

int run(int argc, char** argv) {
  const auto seed = argc == 3 ? number(argv[2]) : std::nullopt;
  if (!seed) {
    fmt::print(stderr, "usage: debug_costs RECORDING SEED\n");
    return 1;
  }
  const Status measured = measure(argv[1], *seed);
  if (measured) return 0;
  fmt::print(stderr, "debug_costs: {}\n", measured.error().message);
  return 1;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  return reprise::run(argc, argv);
}
