// stepwise: replays parts of a recording instruction by instruction, and compares each stop with the same one
// of a straight replay.
//
//   stepwise RECORDING STEPS SEED [WINDOW]
//
// A part is WINDOW stops from a random moment on (all of it from the beginning, if WINDOW is 0 or left out);
// new ones are begun until STEPS steps are done. Each moment must have the digest that it has on the straight
// way, and the end must be the recorded one. Prints one line of figures, and one for each instruction at
// which a step could not be exact and ran on. Exit status: 0; 10 a digest differs or the replay diverges; 1
// any other failure.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstdio>
#include <map>
#include <random>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "replay/timeline/timeline.h"
#include "tests/guest/tool.h"
#include "vmm/host/host_profile.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise {
namespace {

struct Moment {
  replay::Mark mark;
  uint64_t digest = 0;
};

struct Figures {
  uint64_t steps = 0, stops = 0, windows = 0, compared = 0, coarse = 0, step_ns = 0;
  std::map<std::string, uint64_t> ran_on;  // instructions, with how often
};

class Stepper {
 public:
  Stepper(replay::Timeline& timeline, uint64_t most) : timeline_(timeline), most_(most) {}

  // One part, from here to `stops` stops further on; 0: to the end.
  Status go(uint64_t stops) {
    ++figures_.windows;
    const replay::Mark start = timeline_.now();
    TRY_ASSIGN(const auto moments, straight_way(stops));
    if (moments.empty()) return {};
    TRY(timeline_.seek(start));
    return stepwise(moments);
  }
  [[nodiscard]] bool done() const { return figures_.steps + figures_.stops >= most_; }
  [[nodiscard]] const Figures& figures() const { return figures_; }

 private:
  Result<std::vector<Moment>> straight_way(uint64_t stops) {
    std::vector<Moment> moments;
    while (!timeline_.at_end() && (stops == 0 || moments.size() < stops)) {
      const replay::Mark before = timeline_.now();
      TRY(timeline_.advance(std::nullopt));
      if (timeline_.now() == before || timeline_.at_end()) continue;
      TRY_ASSIGN(const uint64_t digest, timeline_.digest());
      moments.push_back({timeline_.now(), digest});
    }
    return moments;
  }

  Status stepwise(const std::vector<Moment>& moments) {
    for (const Moment& moment : moments) {
      while (!timeline_.at_end() && timeline_.now() < moment.mark) {
        TRY(step());
        if (done()) return {};
      }
      TRY_ASSIGN(const uint64_t digest, timeline_.digest());
      ++figures_.compared;
      if (timeline_.now() != moment.mark || digest != moment.digest)
        return fail(ErrorCode::kDivergence, "stepped to {}, digest {:016x}; straight to {}: {:016x}",
                    to_text(timeline_.now()), digest, to_text(moment.mark), moment.digest);
    }
    return {};
  }

  Status step() {
    const VcpuId vcpu = *timeline_.turn();
    vmm::Vcpu& stepping = timeline_.machine().vcpu(vcpu);
    TRY_ASSIGN(const kvm_regs regs, stepping.registers());
    const uint64_t coarse = stepping.coarse_steps();
    const replay::Mark before = timeline_.now();
    const uint64_t start = monotonic_ns();
    TRY(timeline_.step());
    figures_.step_ns += monotonic_ns() - start;
    ++(stepping.stepped() ? figures_.steps : figures_.stops);
    if (stepping.stepped() && timeline_.now().at.steps != before.at.steps + 1)
      return fail(ErrorCode::kDivergence, "one step from {} leads to {}", to_text(before),
                  to_text(timeline_.now()));
    if (stepping.coarse_steps() == coarse) return {};
    ++figures_.coarse;
    TRY_ASSIGN(const kvm_sregs sregs, timeline_.machine().kvm(vcpu).special_registers());
    std::array<uint8_t, 8> code{};
    const vmm::WholeMemory physical(timeline_.machine(), vcpu);
    (void)x86::LinearMemory(vmm::paging_of(sregs), physical).read(Gva(regs.rip), code);
    ++figures_.ran_on[fmt::format("{:#x}: {:02x}", regs.rip, fmt::join(code, " "))];
    return {};
  }

  replay::Timeline& timeline_;
  const uint64_t most_;
  Figures figures_;
};

Status explore(const char* folder, uint64_t steps, uint64_t seed, uint64_t window) {
  std::mt19937_64 random(seed);
  TRY_ASSIGN(const auto recording, log::Recording::open(folder));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  replay::TimelineOptions options;
  options.views = vmm::best_views();
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, std::move(options)));
  Stepper stepper(*timeline, steps);
  const uint64_t events = timeline->end_event();
  const replay::Mark begin = timeline->now();
  do {
    TRY(timeline->seek(window == 0
                           ? begin
                           : replay::Mark{1 + random() % events, {random() % 3 == 0 ? random() % 1000 : 0}}));
    TRY(stepper.go(window));
  } while (window != 0 && !stepper.done());
  TRY(timeline->run_to_end());
  TRY(timeline->finish());
  const Figures& figures = stepper.figures();
  fmt::print("steps={} stops={} windows={} compared={} identical us_per_step={:.1f} coarse={}\n",
             figures.steps, figures.stops, figures.windows, figures.compared,
             static_cast<double>(figures.step_ns) / 1e3 /
                 static_cast<double>(std::max<uint64_t>(figures.steps + figures.stops, 1)),
             figures.coarse);
  for (const auto& [instruction, times] : figures.ran_on)
    fmt::print("ran on {}x at {}\n", times, instruction);
  return {};
}

int run(int argc, char** argv) {
  const auto steps = argc >= 4 ? number(argv[2]) : std::nullopt;
  const auto seed = argc >= 4 ? number(argv[3]) : std::nullopt;
  const auto window = argc == 5 ? number(argv[4]) : std::optional<uint64_t>(0);
  if (!steps || !seed || !window || argc > 5) {
    fmt::print(stderr, "usage: stepwise RECORDING STEPS SEED [WINDOW]\n");
    return 1;
  }
  const Status explored = explore(argv[1], *steps, *seed, *window);
  if (explored) return 0;
  fmt::print(stderr, "stepwise: {}\n", explored.error().message);
  return explored.error().code == ErrorCode::kDivergence ? 10 : 1;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  return reprise::run(argc, argv);
}
