// reprise info, dump and verify: questions about a recording that need no machine.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "analysis/transfers.h"
#include "cli/verbs.h"
#include "log/event_text.h"
#include "log/recording_reader.h"
#include "log/summary.h"
#include "log/verify.h"
#include "vmm/machine_description.h"

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
  fmt::print("machine     {} vCPUs, {} MiB, CPU model {}, mode {}\n", manifest.vcpus(),
             manifest.memory_bytes() >> 20, manifest.cpu_model(), manifest.mode());
  fmt::print("image       {} ({} bytes, xxh3 {})\n", manifest.image().original_path(),
             manifest.image().size(), manifest.image().xxh3_128());
  if (manifest.has_disk())
    fmt::print("disk        {} ({} bytes, xxh3 {})\n", manifest.disk().original_path(),
               manifest.disk().size(), manifest.disk().xxh3_128());
  fmt::print("arguments   {}\n", manifest.command_line().empty() ? "(none)" : manifest.command_line());
  const double seconds = static_cast<double>(summary.wall_nanoseconds) / 1e9;
  if (summary.finished) {
    fmt::print("duration    {:.3f} s\n", seconds);
    fmt::print("digest      {:016x}\n", recording.final()->ram_digest());
  } else {
    fmt::print("duration    unknown: the recording has no end (a prefix; it replays as far as it goes)\n");
  }
  fmt::print("log         {} events, {} bytes, {} before compression\n", summary.events, summary.file_bytes,
             summary.raw_bytes);
  fmt::print("pages       {} with transitions, {} transitions\n\n", summary.pages, summary.transitions);
  fmt::print("{:<12}{:>12}{:>14}{:>12}\n", "kind", "events", "events/s", "bytes");
  for (const auto& kind : summary.kinds)
    fmt::print("{:<12}{:>12}{:>14}{:>12}\n", kind.kind, kind.events,
               seconds > 0 ? fmt::format("{:.0f}", static_cast<double>(kind.events) / seconds) : "-",
               kind.bytes);
  if (summary.top_pages.empty()) return;
  fmt::print("\n{:<18}{:>12}\n", "page (GPA)", "transitions");
  for (const auto& page : summary.top_pages)
    fmt::print("{:<18}{:>12}\n", fmt::format("{:#x}", address_of(page.page).raw), page.transitions);
}

void print_transfers(const analysis::Transfers& transfers) {
  if (transfers.pairs.empty()) return;
  fmt::print("\n{:<18}{:>12}\n", "from, to", "transfers");
  for (const auto& pair : transfers.pairs)
    fmt::print("{:<18}{:>12}\n", fmt::format("vCPU {}, vCPU {}", pair.from.raw, pair.to.raw), pair.count);
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
    return kOk;
  }
  nlohmann::json json = {{"manifest", log::to_json(recording.manifest())},
                         {"summary", log::to_json(summary)}};
  json["transfers"] = json_of(transfers);
  if (recording.final().has_value()) json["final"] = log::to_json(*recording.final());
  fmt::print("{}\n", json.dump(2));
  return kOk;
}

Result<ExitCode> dump(const InspectArguments& arguments) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  for (uint32_t vcpu = 0; vcpu < recording.vcpus(); ++vcpu) {
    if (arguments.vcpu.has_value() && *arguments.vcpu != vcpu) continue;
    TRY_ASSIGN(auto reader, recording.open_log(VcpuId(vcpu)));
    uint64_t number = 0;
    for (;; ++number) {
      TRY_ASSIGN(const auto event, reader.next());
      if (!event.has_value()) break;
      if (number < arguments.from) continue;
      if (arguments.count.has_value() && number >= arguments.from + *arguments.count) break;
      if (arguments.json) {
        nlohmann::json json = log::to_json(*event);
        json["vcpu"] = vcpu;
        fmt::print("{}\n", json.dump());
      } else {
        fmt::print("{:>3} {}\n", vcpu, log::to_text(*event));
      }
    }
  }
  return kOk;
}

Result<ExitCode> verify(const InspectArguments& arguments) {
  TRY_ASSIGN(const auto recording, log::Recording::open(arguments.folder));
  TRY(vmm::check_loads(recording));
  TRY_ASSIGN(const auto verified, log::verify_recording(recording));
  uint64_t events = 0;
  for (const auto& vcpu : verified.logs) events += vcpu.events;
  if (arguments.json)
    fmt::print("{}\n", nlohmann::json{{"finished", verified.finished},
                                      {"events", events},
                                      {"transitions", verified.transitions},
                                      {"pages", verified.pages}}
                           .dump());
  else
    fmt::print("{}: {} events and {} page transitions agree{}\n", arguments.folder, events,
               verified.transitions, verified.finished ? "" : "; a prefix without an end");
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
