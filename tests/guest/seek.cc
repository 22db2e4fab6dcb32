// seek: replays a recording one vCPU at a time, notes digests on the way, and comes back to the same moments
// in random order.
//
//   seek RECORDING SEEKS SEED [CHECKPOINT_US [ONE_IN]]
//
// ONE_IN: of so many moments about one is noted, where a digest takes long.
// Every moment must have the digest that it had on the straight way, and the end must be the recorded one.
// So must those behind which the straight way was interrupted, far from any other place (a checkpoint may
// have been made there): theirs come from another way without checkpoints. Prints one line of figures. Exit
// status: 0; 10 a digest differs or the replay diverges; 1 any other failure.
#include <fmt/format.h>

#include <cstdio>
#include <random>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "replay/timeline/timeline.h"
#include "tests/guest/tool.h"
#include "vmm/host/host_profile.h"

namespace reprise {
namespace {

constexpr size_t kMostMoments = 400;

struct Moment {
  replay::Mark mark;
  uint64_t digest = 0;
};

struct StraightWay {
  std::vector<Moment> moments;
  std::vector<replay::Mark> interrupted;  // the last ones
};

Result<StraightWay> straight_way(replay::Timeline& timeline, uint64_t one_in, std::mt19937_64& random) {
  constexpr size_t kMostInterrupted = 8;
  StraightWay way;
  auto& [moments, interrupted] = way;
  while (!timeline.at_end()) {
    const replay::Mark before = timeline.now();
    TRY(timeline.advance(std::nullopt));
    if (!timeline.is_at_mark() && (interrupted.empty() || interrupted.back() != before)) {
      interrupted.push_back(before);
      if (interrupted.size() > kMostInterrupted) interrupted.erase(interrupted.begin());
    }
    if (timeline.now() == before || timeline.at_end() || random() % one_in != 0) continue;
    TRY_ASSIGN(const uint64_t digest, timeline.digest());
    moments.push_back({timeline.now(), digest});
    if (moments.size() < kMostMoments) continue;
    // Every other one, from now on half as often: as many moments however long the recording is.
    for (size_t i = 0; i < moments.size() / 2; ++i) moments[i] = moments[2 * i];
    moments.resize(moments.size() / 2);
    one_in *= 2;
  }
  return way;
}

Result<std::vector<Moment>> without_checkpoints(const vmm::Kvm& kvm, const log::Recording& recording,
                                                std::span<const replay::Mark> marks) {
  std::vector<Moment> moments;
  if (marks.empty()) return moments;
  replay::TimelineOptions options;
  options.views = vmm::best_views();
  options.checkpoint_every_ns = 0;
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(kvm, recording, std::move(options)));
  for (const replay::Mark& mark : marks) {
    TRY(timeline->run_to(mark));
    TRY_ASSIGN(const uint64_t digest, timeline->digest());
    moments.push_back({mark, digest});
  }
  return moments;
}

Status come_back(replay::Timeline& timeline, const Moment& moment) {
  TRY(timeline.seek(moment.mark));
  TRY_ASSIGN(const uint64_t digest, timeline.digest());
  if (timeline.now() == moment.mark && digest == moment.digest) return {};
  return fail(ErrorCode::kDivergence, "sought {}, found {}, digest {:016x} instead of {:016x}",
              to_text(moment.mark), to_text(timeline.now()), digest, moment.digest);
}

Status explore(const char* folder, uint64_t seeks, uint64_t seed, uint64_t checkpoint_us, uint64_t one_in) {
  std::mt19937_64 random(seed);
  TRY_ASSIGN(const auto recording, log::Recording::open(folder));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  replay::TimelineOptions options;
  options.views = vmm::best_views();
  options.checkpoint_every_ns = checkpoint_us * 1000;
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, std::move(options)));
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(const auto way, straight_way(*timeline, one_in, random));
  const auto& moments = way.moments;
  const uint64_t straight_ns = monotonic_ns() - start;
  TRY(timeline->finish());
  if (moments.empty()) return fail(ErrorCode::kUsage, "no moments in {}", folder);
  uint64_t longest_ns = 0, all_ns = 0;
  for (uint64_t i = 0; i < seeks; ++i) {
    const uint64_t sought = monotonic_ns();
    TRY(come_back(*timeline, moments[random() % moments.size()]));
    longest_ns = std::max(longest_ns, monotonic_ns() - sought);
    all_ns += monotonic_ns() - sought;
  }
  TRY(timeline->run_to_end());
  TRY(timeline->finish());
  TRY_ASSIGN(const auto interrupted, without_checkpoints(*kvm, recording, way.interrupted));
  for (const Moment& moment : interrupted) TRY(come_back(*timeline, moment));
  uint64_t pages = 0;
  for (const auto& checkpoint : timeline->checkpoints()) pages += checkpoint.own_pages;
  fmt::print(
      "moments={} interrupted={} seeks={} identical straight_ms={} seek_ms={:.1f} longest_ms={:.1f} "
      "checkpoints={} "
      "own_pages={}\n",
      moments.size(), interrupted.size(), seeks, straight_ns / 1'000'000,
      static_cast<double>(all_ns) / 1e6 / static_cast<double>(std::max<uint64_t>(seeks, 1)),
      static_cast<double>(longest_ns) / 1e6, timeline->checkpoints().size(), pages);
  return {};
}

int run(int argc, char** argv) {
  const auto seeks = argc >= 4 ? number(argv[2]) : std::nullopt;
  const auto seed = argc >= 4 ? number(argv[3]) : std::nullopt;
  const auto checkpoint_us = argc >= 5 ? number(argv[4]) : std::optional<uint64_t>(20'000);
  const auto one_in = argc == 6 ? number(argv[5]) : std::optional<uint64_t>(1);
  if (!seeks || !seed || !checkpoint_us || one_in.value_or(0) == 0 || argc > 6) {
    fmt::print(stderr, "usage: seek RECORDING SEEKS SEED [CHECKPOINT_US [ONE_IN]]\n");
    return 1;
  }
  const Status explored = explore(argv[1], *seeks, *seed, *checkpoint_us, *one_in);
  if (explored) return 0;
  fmt::print(stderr, "seek: {}\n", explored.error().message);
  return explored.error().code == ErrorCode::kDivergence ? 10 : 1;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  return reprise::run(argc, argv);
}
