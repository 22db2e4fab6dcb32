// reprise replay: run a recording again, exactly.
#include <memory>

#include "cli/gdb_session.h"
#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/run_display.h"
#include "cli/verbs.h"
#include "replay/replay_session.h"
#include "vmm/record/machine_description.h"

namespace reprise::cli {
namespace {

struct ReplayArguments {
  std::string folder;
  std::optional<vmm::ViewKind> views;
  bool json = false;
  std::optional<std::string> memory_file;
  std::vector<std::string> disks;
  std::optional<std::string> gdb;  // where GDB can attach
};

Result<ExitCode> replay_for_gdb(const ReplayArguments& arguments) {
  if (arguments.memory_file.has_value())
    return fail(ErrorCode::kUsage, "--gdb does not go with --save-memory");
  TRY_ASSIGN(const auto listener, replay::gdb::Listener::create(*arguments.gdb));
  const OnForcedEnd remove_socket([&] { listener->remove(); });
  const auto tell = [&] { say("GDB can attach: target extended-remote {}", listener->address()); };
  return serve_gdb({arguments.folder, arguments.views, arguments.json, arguments.disks}, *listener, tell, {});
}

// Nothing is left on the screen but the guest's console when this returns.
Result<replay::ReplayOutcome> run_displayed(const vmm::Kvm& kvm, const log::Recording& recording,
                                            replay::ReplayOptions options, RunDisplay::Options shown) {
  RunDisplay display(std::move(shown));
  options.console = display.console();
  TRY_ASSIGN(const auto session, replay::ReplaySession::create(kvm, recording, std::move(options)));
  drive(*session, display);
  return session->wait();
}

Result<ExitCode> replay_recording(const ReplayArguments& arguments) {
  if (arguments.gdb.has_value()) return replay_for_gdb(arguments);
  const CleanEnd clean_end("the replay came to no position where it could be ended");
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY(vmm::check_recorded(recording));
  warn_of_memory(recording.manifest());
  const bool serial = vmm::is_serial(recording.manifest());
  replay::ReplayOptions options;
  options.views = views_or_best(arguments.views);
  if (arguments.memory_file.has_value()) options.memory_file = *arguments.memory_file;
  options.moved_disks = moved_disks(arguments.disks);
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  TRY_ASSIGN(
      const auto outcome,
      run_displayed(*kvm, recording, std::move(options),
                    {.doing = "replaying", .transition = transition_name(serial), .json = arguments.json}));
  // The guest's own failure was recorded and replayed as it should be: that is a success of the replay.
  const bool interrupted = outcome.run.stop.reason == vmm::StopReason::kInterrupted && !outcome.complete;
  (void)report_outcome(outcome.run, {.what = interrupted        ? "replayed in part, identical so far"
                                             : outcome.complete ? "replayed, identical"
                                                                : "replayed as far as it was recorded",
                                     .serial = serial,
                                     .json = arguments.json});
  return interrupted ? interrupted_exit_code() : kOk;
}

}  // namespace

void add_replay(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<ReplayArguments>();
  auto* verb = app.add_subcommand("replay", "run a recording again, and compare on the way and at the end");
  verb->add_option("recording", arguments->folder, "folder that `reprise record` made")->required();
  add_views_option(*verb, arguments->views);
  verb->add_flag("--json", arguments->json,
                 "report as JSON on standard output; the guest's console goes to standard error");
  verb->add_option("--save-memory", arguments->memory_file,
                   "file to make with the guest's memory as it is in the end");
  add_moved_disks_option(*verb, arguments->disks);
  verb->add_option("--gdb", arguments->gdb,
                   "wait for GDB at HOST:PORT (default: any free port of 127.0.0.1) or unix:PATH")
      ->expected(0, 1);
  verb->callback([arguments, &action] { action = [arguments] { return replay_recording(*arguments); }; });
}

}  // namespace reprise::cli
