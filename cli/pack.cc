// reprise pack: what a recording needs beside itself goes into it.
#include <memory>

#include "base/printable.h"
#include "base/time.h"
#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/run_display.h"
#include "cli/verbs.h"
#include "replay/replay_session.h"
#include "vmm/record/machine_description.h"

namespace reprise::cli {
namespace {

struct PackArguments {
  std::string folder;
  std::vector<std::string> disks;
  bool json = false;
};

Result<ExitCode> pack(const PackArguments& arguments) {
  const CleanEnd clean_end("nothing was packed");
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY(vmm::check_recorded(recording));
  replay::ReplayOptions options;
  options.views = vmm::best_views();
  options.moved_disks = moved_disks(arguments.disks);
  options.packs = true;
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  TRY_ASSIGN(const auto session, replay::ReplaySession::create(*kvm, recording, std::move(options)));
  {
    RunDisplay display({.doing = "replaying",
                        .transition = transition_name(vmm::is_serial(recording.manifest())),
                        .json = arguments.json});
    drive(*session, display);
  }
  TRY_ASSIGN(const auto outcome, session->wait());
  if (outcome.run.stop.reason == vmm::StopReason::kInterrupted && !outcome.complete) {
    say("interrupted: nothing was packed");
    return interrupted_exit_code();
  }
  const auto seconds = static_cast<double>(monotonic_ns() - start) / 1e9;
  const int disks = recording.manifest().disks_size();
  if (arguments.json)
    print_json({{"verb", "packed"}, {"disks", disks}, {"bytes", outcome.packed_bytes}, {"seconds", seconds}});
  else
    print("packed: {}, {} bytes in {}; {:.3f} s\n", counted(static_cast<uint64_t>(disks), "disk"),
          outcome.packed_bytes, printable(arguments.folder), seconds);
  return kOk;
}

}  // namespace

void add_pack(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<PackArguments>();
  auto* verb = app.add_subcommand(
      "pack",
      "replay a recording, and copy into it what it reads of disk images: it then replays without them");
  verb->add_option("recording", arguments->folder, "folder that `reprise record` made")->required();
  add_moved_disks_option(*verb, arguments->disks);
  verb->add_flag("--json", arguments->json, "report as JSON on standard output");
  verb->callback([arguments, &action] { action = [arguments] { return pack(*arguments); }; });
}

}  // namespace reprise::cli
