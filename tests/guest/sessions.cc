// sessions: drives a recording and its replay from outside, as a front end does.
//
//   sessions IMAGE VCPUS FOLDER ROUNDS COMMAND_LINE
//
// Records IMAGE, pauses it ROUNDS times, stops it; then replays the recording, pausing that, too. While a
// session is paused, nothing may move: no stop, no transition, no virtual time. The replay must be identical.
// Prints one line of figures. Exit status: 0; 10 something moved or differs; 1 any other failure.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>

#include "replay/replay_session.h"
#include "tests/guest/tool.h"
#include "vmm/host/host_profile.h"
#include "vmm/record/record_session.h"

namespace reprise {
namespace {

using std::chrono::milliseconds;

// Long enough that a vCPU which still executes is seen to.
constexpr milliseconds kPause{100};
// Between two pauses, and for the first stop after one on a busy host.
constexpr milliseconds kRun{50}, kPatience{20'000};

bool is_equal(const vmm::Progress& a, const vmm::Progress& b) {
  return a.wall_ns == b.wall_ns && a.transitions == b.transitions && a.stops == b.stops &&
         a.virtual_ns == b.virtual_ns;
}

uint64_t exits(const vmm::Session& session) {
  uint64_t count = 0;
  for (const auto& vcpu : session.statistics())
    count += vcpu.faults + vcpu.traps + vcpu.port_io + vcpu.mmio + vcpu.halts + vcpu.interrupts;
  return count;
}

// Errors: kDivergence: it moves while it is paused.
Status pause_once(vmm::Session& session) {
  if (!session.pause()) return fail(ErrorCode::kHost, "no standstill within a second");
  const vmm::Progress before = session.progress();
  const uint64_t exits_before = exits(session);
  std::this_thread::sleep_for(kPause);
  const vmm::Progress after = session.progress();
  if (!is_equal(before, after) || exits(session) != exits_before)
    return fail(
        ErrorCode::kDivergence,
        "it moves while it is paused: stops {} to {}, transitions {} to {}, virtual time {} to {} ns, "
        "exits {} to {}",
        before.stops, after.stops, before.transitions, after.transitions, before.virtual_ns.value_or(0),
        after.virtual_ns.value_or(0), exits_before, exits(session));
  session.resume();
  return {};
}

// Pauses it so many times, or less if it ends before. Returns how many times.
Result<uint64_t> pause_and_resume(vmm::Session& session, uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) {
    if (session.wait_for(kRun)) return i;
    TRY(pause_once(session));
  }
  return rounds;
}

// After a pause it goes on: virtual time passes.
Status expect_progress(vmm::Session& session) {
  const vmm::Progress before = session.progress();
  std::this_thread::sleep_for(kRun);
  const vmm::Progress after = session.progress();
  const uint64_t passed = after.virtual_ns.value_or(0) - before.virtual_ns.value_or(0);
  if (passed >= 1'000'000'000) return fail(ErrorCode::kDivergence, "virtual time jumps by {} ns", passed);
  if (after.wall_ns > before.wall_ns && passed != 0) return {};
  return fail(ErrorCode::kDivergence, "it does not go on after a pause");
}

struct Arguments {
  const char* image;
  uint64_t vcpus;
  const char* folder;
  uint64_t rounds;
  const char* command_line;
};

Result<vmm::Outcome> record(const vmm::Kvm& kvm, const Arguments& arguments) {
  vmm::RecordOptions options;
  options.description = vmm::new_description(false);
  options.description.set_vcpus(static_cast<uint32_t>(arguments.vcpus));
  options.description.set_command_line(arguments.command_line);
  options.description.mutable_image()->set_original_path(arguments.image);
  TRY(vmm::check_description(options.description));
  std::ifstream file(arguments.image, std::ios::binary);
  options.files.image.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  options.views = vmm::best_views();
  *options.description.mutable_host() = vmm::to_message(vmm::describe_host(kvm, options.views));
  options.folder = arguments.folder;
  TRY_ASSIGN(const auto session, vmm::RecordSession::create(kvm, std::move(options)));
  session->start();
  TRY_ASSIGN(const uint64_t paused, pause_and_resume(*session, arguments.rounds));
  if (paused != arguments.rounds) return fail(ErrorCode::kUsage, "the guest ended after {} pauses", paused);
  TRY(expect_progress(*session));
  // It ends while it is paused, too.
  if (!session->pause()) return fail(ErrorCode::kHost, "no standstill within a second");
  session->stop();
  if (!session->wait_for(kPatience)) return fail(ErrorCode::kHost, "it does not end");
  return session->wait();
}

Status record_and_replay(const Arguments& arguments) {
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  TRY_ASSIGN(const vmm::Outcome recorded, record(*kvm, arguments));
  if (recorded.stop.reason != vmm::StopReason::kInterrupted)
    return fail(ErrorCode::kDivergence, "it ended in another way: {}", recorded.stop.message);
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  if (!recording.final().has_value()) return fail(ErrorCode::kDivergence, "the recording has no end");
  replay::ReplayOptions options;
  options.views = vmm::best_views();
  TRY_ASSIGN(const auto session, replay::ReplaySession::create(*kvm, recording, std::move(options)));
  session->start();
  TRY_ASSIGN(const uint64_t paused, pause_and_resume(*session, arguments.rounds));
  TRY_ASSIGN(const auto replayed, session->wait());
  if (!replayed.complete || replayed.run.memory_digest != recorded.memory_digest ||
      replayed.run.register_digests != recorded.register_digests)
    return fail(ErrorCode::kDivergence, "the replay is not identical");
  fmt::print("paused {} times while recording, {} while replaying, {} transitions, {} ms\n", arguments.rounds,
             paused, recorded.tickets, recorded.wall_ns / 1'000'000);
  return {};
}

int run(int argc, char** argv) {
  const auto vcpus = argc == 6 ? number(argv[2]) : std::nullopt;
  const auto rounds = argc == 6 ? number(argv[4]) : std::nullopt;
  if (!vcpus || !rounds) {
    fmt::print(stderr, "usage: sessions IMAGE VCPUS FOLDER ROUNDS COMMAND_LINE\n");
    return 1;
  }
  const Status done = record_and_replay({argv[1], *vcpus, argv[3], *rounds, argv[5]});
  if (done) return 0;
  fmt::print(stderr, "sessions: {}\n", done.error().message);
  return done.error().code == ErrorCode::kDivergence ? 10 : 1;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  return reprise::run(argc, argv);
}
