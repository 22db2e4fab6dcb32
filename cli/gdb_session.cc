#include "cli/gdb_session.h"

#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/recording_answers.h"
#include "cli/run_display.h"
#include "replay/gdb/server.h"
#include "replay/gdb/timeline_target.h"

namespace reprise::cli {

Result<ExitCode> serve_gdb(const GdbSessionArguments& arguments, replay::gdb::Listener& listener,
                           const std::function<void()>& listening, const std::function<bool()>& ended) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  const bool serial = recording.manifest().mode() == "serial";
  RunDisplay display({.doing = "replaying", .transition = transition_name(serial), .json = arguments.json});
  replay::TimelineOptions options;
  options.views = views_or_best(arguments.views);
  options.console = display.console();
  const auto remark = [](const std::string& sentence) { say("{}", sentence); };
  options.remark = remark;
  options.moved_disks = moved_disks(arguments.disks);
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, std::move(options)));
  TRY_ASSIGN(const auto target, replay::gdb::TimelineTarget::create(*timeline, recording));
  TRY_ASSIGN(const auto answers, AnalysisAnswers::create(recording, *timeline));
  listening();
  for (;;) {
    TRY_ASSIGN(auto client, listener.accept());
    const auto end = replay::gdb::serve_client(std::move(client), *target, *answers, remark);
    if (end && *end == replay::gdb::SessionEnd::kDetached) break;
    if (ended && ended()) return kOk;
  }
  TRY(timeline->run_to_end());
  TRY_ASSIGN(const auto outcome, timeline->finish());
  (void)report_outcome(
      outcome.run, {.what = outcome.complete ? "replayed, identical" : "replayed as far as it was recorded",
                    .serial = serial,
                    .json = arguments.json});
  return kOk;
}

}  // namespace reprise::cli
