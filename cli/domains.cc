// reprise domains and domain-xml: machines of libvirt's that can be recorded, and recordings as such
// machines.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "cli/domain_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "definition/domain.h"
#include "definition/libvirt.h"
#include "log/format.h"
#include "log/recording_reader.h"
#include "vmm/record/machine_description.h"

namespace reprise::cli {
namespace {

struct DomainsArguments {
  std::optional<std::string> connect;
  bool json = false;
};

// What becomes of one domain.
struct Prospect {
  std::string name;
  bool is_running = false;
  enum class Kind { kRecordable, kNeedsKernel, kRefused } kind = Kind::kRefused;
  std::vector<definition::Obstacle> obstacles;  // kRefused
};

constexpr std::string_view word(Prospect::Kind kind) {
  switch (kind) {
    case Prospect::Kind::kRecordable:
      return "yes";
    case Prospect::Kind::kNeedsKernel:
      return "with --kernel";
    case Prospect::Kind::kRefused:
      break;
  }
  return "no";
}

Prospect prospect_of(const definition::ListedDomain& listed) {
  Prospect prospect{.name = listed.name, .is_running = listed.is_running};
  auto verdict = definition::read_domain(listed.xml);
  if (!verdict) {
    prospect.obstacles.push_back({"domain", verdict.error().message});
  } else if (auto* refusal = std::get_if<definition::Refusal>(&*verdict)) {
    prospect.obstacles = std::move(refusal->obstacles);
  } else {
    prospect.kind = std::get<definition::Domain>(*verdict).boots_from_disk() ? Prospect::Kind::kNeedsKernel
                                                                             : Prospect::Kind::kRecordable;
  }
  return prospect;
}

nlohmann::json json_of(const Prospect& prospect) {
  auto obstacles = nlohmann::json::array();
  for (const auto& obstacle : prospect.obstacles)
    obstacles.push_back({{"element", obstacle.element}, {"why", obstacle.why}});
  return {{"name", prospect.name},
          {"running", prospect.is_running},
          {"recordable", prospect.kind != Prospect::Kind::kRefused},
          {"needs_kernel", prospect.kind == Prospect::Kind::kNeedsKernel},
          {"obstacles", obstacles}};
}

Result<ExitCode> list_domains(const DomainsArguments& arguments) {
  TRY_ASSIGN(const auto libvirt, definition::Libvirt::connect(arguments.connect));
  TRY_ASSIGN(const auto listed, libvirt->domains());
  if (arguments.json) {
    auto all = nlohmann::json::array();
    for (const auto& each : listed) all.push_back(json_of(prospect_of(each)));
    print_json(all);
    return kOk;
  }
  print("{:<24}{:<10}{:<15}{}\n", "domain", "state", "can be recorded", "  what prevents it");
  for (const auto& each : listed) {
    const Prospect prospect = prospect_of(each);
    print("{:<24}{:<10}{:<15}", printable(prospect.name), prospect.is_running ? "running" : "shut off",
          word(prospect.kind));
    std::string_view separator = "  ";
    for (const auto& obstacle : prospect.obstacles) {
      print("{}{} {}", separator, printable(obstacle.element), printable(obstacle.why));
      separator = "; ";
    }
    print("\n");
  }
  return kOk;
}

// The recording's own kernel and initial RAM disk, so that it starts wherever the recording is.
Result<ExitCode> print_definition(const std::string& folder) {
  TRY_ASSIGN(const auto recording, log::Recording::open(folder));
  TRY(vmm::check_recorded(recording));
  log::pb::Manifest machine = recording.manifest();
  const auto path = std::filesystem::absolute(folder).lexically_normal();
  machine.mutable_image()->set_original_path((path / log::kImageFile).string());
  if (machine.has_initrd()) machine.mutable_initrd()->set_original_path((path / log::kInitrdFile).string());
  const auto named = path.has_filename() ? path.filename() : path.parent_path().filename();
  TRY_ASSIGN(const std::string xml, definition::write_domain(machine, named.string()));
  print_text(xml);
  return kOk;
}

}  // namespace

void add_domains(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<DomainsArguments>();
  auto* verb = app.add_subcommand("domains", "list libvirt's domains, and whether each can be recorded");
  add_connect_option(*verb, arguments->connect);
  verb->add_flag("--json", arguments->json, "as JSON on standard output");
  verb->callback([arguments, &action] { action = [arguments] { return list_domains(*arguments); }; });
}

void add_domain_xml(CLI::App& app, Action& action) {
  auto folder = std::make_shared<std::string>();
  auto* verb = app.add_subcommand(
      "domain-xml", "print a definition for libvirt that starts the recorded machine under QEMU");
  verb->add_option("recording", *folder, "folder that `reprise record` made")->required();
  verb->callback([folder, &action] { action = [folder] { return print_definition(*folder); }; });
}

}  // namespace reprise::cli
