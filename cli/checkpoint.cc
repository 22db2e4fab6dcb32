// reprise checkpoint: checkpoints beside a recording, for debuggers that come later.
#include <memory>

#include "base/printable.h"
#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "replay/timeline/timeline.h"

namespace reprise::cli {
namespace {

struct CheckpointArguments {
  std::string folder;
  std::optional<vmm::ViewKind> views;
  double every_seconds = 1;
};

// What was stored is of use only if a new session can put it back.
Status verify_checkpoints(const vmm::Kvm& kvm, const log::Recording& recording,
                          replay::TimelineOptions options, size_t stored) {
  std::string why = "some files are missing";
  options.remark = [&](const std::string& sentence) { why = sentence; };
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(kvm, recording, std::move(options)));
  TRY_ASSIGN(const size_t good, timeline->verify_checkpoints());
  if (good == stored) return {};
  return fail(ErrorCode::kOutput,
              "{} of {} checkpoints can be used, the others were not stored as they should be: {}", good,
              stored, why);
}

// Timeline's code for an interruption is kUsage, as for GDB's.
bool is_interruption(const Status& status) {
  return !status && status.error().code == ErrorCode::kUsage && interrupt_flag().load();
}

ExitCode interrupted(const Error& error, std::string_view what, size_t stored) {
  say("{}; the checkpoints that {} ({})", error.message, what, stored);
  return interrupted_exit_code();
}

Result<ExitCode> make_checkpoints(const CheckpointArguments& arguments) {
  const CleanEnd clean_end("the checkpoints that were stored until then can be used");
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  replay::TimelineOptions options;
  options.views = views_or_best(arguments.views);
  options.interrupt = &interrupt_flag();
  options.checkpoint_every_ns = static_cast<uint64_t>(arguments.every_seconds * 1e9);
  options.store_checkpoints = true;
  options.most_checkpoints = 2;  // in memory
  size_t stored = 0;
  {
    TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, options));
    const Status ran = timeline->run_to_end();
    stored = timeline->checkpoints_made() - 1;  // the beginning needs no file
    if (is_interruption(ran)) return interrupted(ran.error(), "were stored until then can be used", stored);
    TRY(ran);
    TRY(timeline->finish());
  }
  options.store_checkpoints = false;
  options.checkpoint_every_ns = 0;
  const Status verified = verify_checkpoints(*kvm, recording, std::move(options), stored);
  if (is_interruption(verified))
    return interrupted(verified.error(), "were stored are there, but not all were put back", stored);
  TRY(verified);
  print("{} checkpoints in {}\n", stored, printable(arguments.folder));
  return kOk;
}

}  // namespace

void add_checkpoint(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<CheckpointArguments>();
  auto* verb = app.add_subcommand(
      "checkpoint", "run a recording, and keep checkpoints beside it: GDB then goes to any moment at once");
  verb->add_option("recording", arguments->folder, "folder that `reprise record` made")->required();
  verb->add_option("--every", arguments->every_seconds, "seconds of executing between two of them")
      ->check(CLI::Range(0.01, 86400.0))
      ->capture_default_str();
  add_views_option(*verb, arguments->views);
  verb->callback([arguments, &action] { action = [arguments] { return make_checkpoints(*arguments); }; });
}

}  // namespace reprise::cli
