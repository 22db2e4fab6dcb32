// reprise races: the data races that happened in a recording, and needless sharing.
#include "analysis/races.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "analysis/suppressions.h"
#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/race_report.h"
#include "cli/verbs.h"
#include "vmm/record/machine_description.h"

namespace reprise::cli {
namespace {

struct RacesArguments {
  std::string folder;
  std::optional<vmm::ViewKind> views;
  std::optional<std::string> from, to, suppress;
  std::vector<std::string> disks;
  uint64_t accesses = analysis::TraceLimits().accesses;
  bool json = false;
};

Result<analysis::Suppressions> suppressions_of(const RacesArguments& arguments) {
  if (!arguments.suppress.has_value()) return analysis::Suppressions();
  TRY_ASSIGN(const auto bytes, read_file(*arguments.suppress));
  return analysis::Suppressions::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Result<analysis::RaceOptions> options_of(const RacesArguments& arguments) {
  analysis::RaceOptions options;
  options.limits.accesses = arguments.accesses;
  if (arguments.from.has_value()) {
    TRY_ASSIGN(options.from, replay::parse_mark(*arguments.from));
  }
  if (arguments.to.has_value()) {
    TRY_ASSIGN(options.to, replay::parse_mark(*arguments.to));
  }
  return options;
}

// Nothing, with a sentence: there are none.
std::optional<analysis::Symbols> symbols_of(const log::Recording& recording) {
  auto symbols = analysis::Symbols::open(recording.folder() / "image.elf");
  if (!symbols) say("{}", symbols.error().message);
  return symbols ? std::optional(std::move(*symbols)) : std::nullopt;
}

Result<analysis::Races> look(const RacesArguments& arguments, const log::Recording& recording) {
  TRY_ASSIGN(const auto options, options_of(arguments));
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  replay::TimelineOptions timeline_options;
  timeline_options.views = views_or_best(arguments.views);
  timeline_options.interrupt = &interrupt_flag();
  timeline_options.moved_disks = moved_disks(arguments.disks);
  TRY_ASSIGN(const auto timeline, replay::Timeline::open(*kvm, recording, std::move(timeline_options)));
  const auto symbols = symbols_of(recording);
  return analysis::find_races(*timeline, recording, symbols.has_value() ? &*symbols : nullptr, options);
}

void print_as_text(const analysis::Races& found, const analysis::Suppressions& suppressions,
                   const std::string& folder) {
  for (const auto& race : found.races) print("{}\n", text_of(race, folder));
  for (const auto& sharing : found.false_sharing) print("{}\n", text_of(sharing));
  for (const auto& line : suppressions.lines())
    if (line.races != 0) print("suppressed by {}: {}\n", line.text, counted(line.races, "race"));
  print("{}, {}; {} accesses to {} looked at\n", counted(found.races.size(), "race"),
        counted(found.false_sharing.size(), "falsely shared page"), found.accesses,
        counted(found.pages, "page"));
}

void print_as_json(const analysis::Races& found, const analysis::Suppressions& suppressions) {
  nlohmann::json json = {{"accesses", found.accesses},
                         {"pages", found.pages},
                         {"pages_left_out", found.pages_left_out},
                         {"stretches", found.stretches},
                         {"stretches_seen_in_part", found.unseen}};
  json["races"] = json["false_sharing"] = json["suppressed"] = nlohmann::json::array();
  for (const auto& race : found.races) json["races"].push_back(json_of(race));
  for (const auto& sharing : found.false_sharing) json["false_sharing"].push_back(json_of(sharing));
  for (const auto& line : suppressions.lines())
    json["suppressed"].push_back({{"line", line.text}, {"races", line.races}});
  if (found.ended_at.has_value()) json["ended_at"] = replay::to_text(*found.ended_at);
  print_json(json, 2);
}

Result<ExitCode> find(const RacesArguments& arguments) {
  const CleanEnd clean_end("nothing was found out");
  TRY_ASSIGN(auto suppressions, suppressions_of(arguments));
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY(vmm::check_recorded(recording));
  auto looked = look(arguments, recording);
  if (!looked && interrupt_flag().load()) {
    say("{}", looked.error().message);
    return interrupted_exit_code();
  }
  TRY_ASSIGN(auto found, std::move(looked));
  std::erase_if(found.races, [&](const analysis::Race& race) { return suppressions.cover(race); });
  if (arguments.json)
    print_as_json(found, suppressions);
  else
    print_as_text(found, suppressions, arguments.folder);
  if (found.ended_at.has_value())
    say("{} accesses were looked at, up to {}: --from {} goes on there, --accesses N looks at more",
        found.accesses, replay::to_text(*found.ended_at), replay::to_text(*found.ended_at));
  return found.races.empty() ? kOk : kRacesFound;
}

}  // namespace

void add_races(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<RacesArguments>();
  auto* verb = app.add_subcommand(
      "races", "find the data races that happened in a recording, and pages that are shared without need");
  verb->add_option("recording", arguments->folder, "folder that `reprise record` made")->required();
  add_views_option(*verb, arguments->views);
  verb->add_flag("--json", arguments->json, "JSON on standard output");
  verb->add_option("--from", arguments->from, "mark from which on to look (default: the beginning)");
  verb->add_option("--to", arguments->to, "mark up to which to look (default: the end)");
  verb->add_option("--suppress", arguments->suppress,
                   "file of lines race:PATTERN, for races that are not to be reported");
  verb->add_option("--accesses", arguments->accesses, "how many accesses to look at, at most")
      ->capture_default_str();
  add_moved_disks_option(*verb, arguments->disks);
  verb->callback([arguments, &action] { action = [arguments] { return find(*arguments); }; });
}

}  // namespace reprise::cli
