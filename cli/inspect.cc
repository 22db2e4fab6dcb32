// reprise info, dump and verify: questions about a recording that need no machine.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "analysis/transfers.h"
#include "base/printable.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "log/event_text.h"
#include "log/recording_reader.h"
#include "log/summary.h"
#include "log/verify.h"
#include "vmm/record/machine_description.h"

namespace reprise::cli {
namespace {

struct InspectArguments {
  std::string folder;
  bool json = false;
  std::optional<uint32_t> vcpu;
  uint64_t from = 0;
  std::optional<uint64_t> count;
};

void print_info(const log::Recording& recording, const log::Summary& summary) {
  const auto& manifest = recording.manifest();
  print("machine     {} vCPUs, {} MiB, CPU model {}, mode {}\n", manifest.vcpus(),
        manifest.memory_bytes() >> 20, printable(manifest.cpu_model()), printable(manifest.mode()));
  print("image       {} ({} bytes, xxh3 {})\n", printable(manifest.image().original_path()),
        manifest.image().size(), printable(manifest.image().xxh3_128()));
  for (const auto& disk : manifest.disks())
    print("disk        {} ({} bytes, xxh3 {})\n", printable(disk.original_path()), disk.size(),
          printable(disk.xxh3_128()));
  print("arguments   {}\n", manifest.command_line().empty() ? "(none)" : printable(manifest.command_line()));
  const double seconds = static_cast<double>(summary.wall_nanoseconds) / 1e9;
  if (summary.finished) {
    print("duration    {:.3f} s\n", seconds);
    print("digest      {:016x}\n", recording.final()->ram_digest());
  } else {
    print("duration    unknown: the recording has no end (a prefix; it replays as far as it goes)\n");
  }
  print("log         {} events, {} bytes, {} before compression\n", summary.events, summary.file_bytes,
        summary.raw_bytes);
  print("pages       {} with transitions, {} transitions\n\n", summary.pages, summary.transitions);
  print("{:<12}{:>12}{:>14}{:>12}\n", "kind", "events", "events/s", "bytes");
  for (const auto& kind : summary.kinds)
    print("{:<12}{:>12}{:>14}{:>12}\n", kind.kind, kind.events,
          seconds > 0 ? fmt::format("{:.0f}", static_cast<double>(kind.events) / seconds) : "-", kind.bytes);
  if (summary.top_pages.empty()) return;
  print("\n{:<18}{:>12}\n", "page (GPA)", "transitions");
  for (const auto& page : summary.top_pages)
    print("{:<18}{:>12}\n", fmt::format("{:#x}", address_of(page.page).raw), page.transitions);
}

void print_transfers(const analysis::Transfers& transfers) {
  if (transfers.pairs.empty()) return;
  print("\n{:<18}{:>12}\n", "from, to", "transfers");
  for (const auto& pair : transfers.pairs)
    print("{:<18}{:>12}\n", fmt::format("vCPU {}, vCPU {}", pair.from.raw, pair.to.raw), pair.count);
}

// Where the vCPUs' time went, in parts of the whole.
void print_times(const log::pb::Final& final) {
  if (final.times().empty() || final.wall_nanoseconds() == 0) return;
  const auto part = [&](uint64_t ns) {
    return fmt::format("{:.1f} %",
                       100 * static_cast<double>(ns) / static_cast<double>(final.wall_nanoseconds()));
  };
  print("\n{:<6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}\n", "vCPU", "guest", "touches", "pages", "turn",
        "grants", "revokes", "decode", "log", "idle");
  for (int vcpu = 0; vcpu < final.times_size(); ++vcpu) {
    const auto& times = final.times(vcpu);
    print("{:<6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}\n", vcpu, part(times.guest()),
          part(times.first_touches()), part(times.pages()), part(times.turn()), part(times.grants()),
          part(times.revokes()), part(times.decode()), part(times.log()), part(times.idle()));
    for (int holder = 0; holder < times.pages_of_size(); ++holder)
      if (times.pages_of(holder) != 0)
        print("      {} of it waiting for pages of vCPU {}\n", part(times.pages_of(holder)), holder);
  }
}

nlohmann::json json_of(const analysis::Transfers& transfers) {
  nlohmann::json pairs = nlohmann::json::array();
  for (const auto& pair : transfers.pairs)
    pairs.push_back({{"from", pair.from.raw}, {"to", pair.to.raw}, {"count", pair.count}});
  return pairs;
}

Result<ExitCode> info(const InspectArguments& arguments) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY_ASSIGN(const auto summary, log::summarize(recording));
  TRY_ASSIGN(auto transitions, analysis::TransitionLog::open(recording));
  TRY_ASSIGN(const auto transfers, analysis::transfers(transitions, Ticket(1), Ticket(UINT64_MAX)));
  if (!arguments.json) {
    print_info(recording, summary);
    print_transfers(transfers);
    if (recording.final().has_value()) print_times(*recording.final());
    return kOk;
  }
  nlohmann::json json = {{"manifest", log::to_json(recording.manifest())},
                         {"summary", log::to_json(summary)}};
  json["transfers"] = json_of(transfers);
  if (recording.final().has_value()) json["final"] = log::to_json(*recording.final());
  print_json(json, 2);
  return kOk;
}

// Prints a part of a log; returns how many events it has, as far as it was read.
Result<uint64_t> dump_log(const log::Recording& recording, VcpuId vcpu, const InspectArguments& arguments) {
  TRY_ASSIGN(auto reader, recording.open_log(vcpu));
  for (uint64_t number = 0;; ++number) {
    TRY_ASSIGN(const auto event, reader.next());
    if (!event.has_value()) return number;
    if (number < arguments.from) continue;
    if (arguments.count.has_value() && number - arguments.from >= *arguments.count) return number;
    TRY(output_status());
    if (arguments.json) {
      nlohmann::json json = log::to_json(*event);
      json["vcpu"] = vcpu.raw;
      print_json(json);
    } else {
      print("{:>3} {}\n", vcpu.raw, log::to_text(*event));
    }
  }
}

Result<ExitCode> dump(const InspectArguments& arguments) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  if (arguments.vcpu.has_value() && *arguments.vcpu >= recording.vcpus())
    return fail(ErrorCode::kUsage, "there is no vCPU {}: the recording has {}, numbered from 0",
                *arguments.vcpu, counted(recording.vcpus(), "vCPU"));
  uint64_t most = 0;
  for (uint32_t vcpu = 0; vcpu < recording.vcpus(); ++vcpu) {
    if (arguments.vcpu.has_value() && *arguments.vcpu != vcpu) continue;
    TRY_ASSIGN(const uint64_t events, dump_log(recording, VcpuId(vcpu), arguments));
    most = std::max(most, events);
  }
  if (arguments.from > 0 && arguments.from >= most)
    return fail(ErrorCode::kUsage, "there is no event {}: {} {}, numbered from 0", arguments.from,
                arguments.vcpu.has_value() ? fmt::format("the log of vCPU {} has", *arguments.vcpu)
                                           : "the longest log has",
                counted(most, "event"));
  return kOk;
}

Result<ExitCode> verify(const InspectArguments& arguments) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY(vmm::check_loads(recording));
  TRY_ASSIGN(const auto verified, log::verify_recording(recording));
  uint64_t events = 0;
  for (const auto& vcpu : verified.logs) events += vcpu.events;
  if (arguments.json)
    print_json({{"finished", verified.finished},
                {"events", events},
                {"transitions", verified.transitions},
                {"pages", verified.pages}});
  else
    print("{}: {} and {} agree{}\n", printable(arguments.folder), counted(events, "event"),
          counted(verified.transitions, transition_name(recording.manifest().mode() == "serial")),
          verified.finished ? "" : "; a prefix without an end");
  return kOk;
}

CLI::App* add(CLI::App& app, Action& action, const char* name, const char* help,
              const std::shared_ptr<InspectArguments>& arguments,
              Result<ExitCode> (*act)(const InspectArguments&)) {
  auto* verb = app.add_subcommand(name, help);
  verb->add_option("recording", arguments->folder, "folder that `reprise record` made")->required();
  verb->add_flag("--json", arguments->json, "JSON on standard output");
  verb->callback([arguments, act, &action] { action = [arguments, act] { return act(*arguments); }; });
  return verb;
}

}  // namespace

void add_info(CLI::App& app, Action& action) {
  add(app, action, "info", "summarise a recording", std::make_shared<InspectArguments>(), info);
}

void add_dump(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<InspectArguments>();
  auto* verb = add(app, action, "dump", "show the events of a recording, one a line", arguments, dump);
  verb->add_option("--vcpu", arguments->vcpu, "only this vCPU's log");
  verb->add_option("--from", arguments->from, "number of the first event, from 0");
  verb->add_option("--count", arguments->count, "how many events of each log");
}

void add_verify(CLI::App& app, Action& action) {
  add(app, action, "verify", "check a recording without running it", std::make_shared<InspectArguments>(),
      verify);
}

}  // namespace reprise::cli
