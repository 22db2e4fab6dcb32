// reprise doctor: what this host can do, found by trying, and what follows.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/verbs.h"
#include "vmm/host/host_profile.h"

namespace reprise::cli {
namespace {

const char* name_of(vmm::ViewKind views) {
  return views == vmm::ViewKind::kUserfault ? "userfaultfd" : "mprotect";
}

void print_row(size_t first, size_t second, const vmm::HostFact& row) {
  print("{}\n", row.consequence.empty()
                    ? fmt::format("{:<{}}  {}", row.name, first, row.value)
                    : fmt::format("{:<{}}  {:<{}}  {}", row.name, first, row.value, second, row.consequence));
}

void print_table(const vmm::HostProfile& profile) {
  constexpr size_t kWidest = 48;  // a longer value pushes its row's last column to the right
  size_t first = 0, second = 0;
  for (const auto& fact : profile.facts) {
    first = std::max(first, fact.name.size());
    if (fact.value.size() <= kWidest) second = std::max(second, fact.value.size());
  }
  for (const auto& timing : profile.timings) first = std::max(first, timing.name.size());
  print_row(first, second, {"fact", "found", "what follows"});
  for (const auto& fact : profile.facts) print_row(first, second, fact);
  print("\n{:<{}}  {:>10}\n", "cost", first, "us");
  for (const auto& timing : profile.timings)
    print("{:<{}}  {:>10.{}f}\n", timing.name, first, timing.microseconds, timing.microseconds < 1 ? 4 : 1);
  print("\n");
  const auto obstacle = profile.obstacle();
  print_row(first, second, {"profile", profile.name(), ""});
  print_row(first, second, {"clock", profile.clock(), ""});
  print_row(first, second, {"views", name_of(profile.views()), ""});
  print_row(first, second, {"topology", profile.topology(), ""});
  print_row(first, second, {"debug backend", profile.debug_backend(), ""});
  for (const auto& instruction : profile.not_trapped())
    print_row(first, second, {"not trapped", instruction, ""});
  print_row(first, second, {"can record", obstacle.has_value() ? "no: " + *obstacle : "yes", ""});
}

nlohmann::json to_json(const vmm::HostProfile& profile) {
  auto facts = nlohmann::json::array();
  for (const auto& fact : profile.facts)
    facts.push_back({{"name", fact.name}, {"value", fact.value}, {"consequence", fact.consequence}});
  auto timings = nlohmann::json::object();
  for (const auto& timing : profile.timings) timings[timing.name] = timing.microseconds;
  const auto obstacle = profile.obstacle();
  nlohmann::json json = {{"profile", profile.name()},
                         {"facts", facts},
                         {"microseconds", timings},
                         {"clock", profile.clock()},
                         {"views", name_of(profile.views())},
                         {"topology", profile.topology()},
                         {"debug_backend", profile.debug_backend()},
                         {"not_trapped", profile.not_trapped()},
                         {"can_record", !obstacle.has_value()}};
  if (profile.walk_writes.has_value()) json["walk_writes"] = *profile.walk_writes;
  if (obstacle.has_value()) json["obstacle"] = *obstacle;
  return json;
}

Result<ExitCode> doctor(bool json) {
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  TRY_ASSIGN(const auto profile, vmm::probe_host(*kvm));
  if (json)
    print_json(to_json(profile), 2);
  else
    print_table(profile);
  return profile.obstacle().has_value() ? kHostCannot : kOk;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto json = std::make_shared<bool>(false);
  auto* verb = app.add_subcommand("doctor", "find out by trying what this host can do");
  verb->add_flag("--json", *json, "JSON on standard output");
  verb->callback([json, &action] { action = [json] { return doctor(*json); }; });
}

}  // namespace reprise::cli
