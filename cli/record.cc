// reprise record: run a guest and write down what a replay needs.
#include <memory>

#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "vmm/host/host_profile.h"

namespace reprise::cli {
namespace {

struct RecordArguments {
  MachineArguments machine;
  std::optional<vmm::ViewKind> views;
  std::string folder;
  std::optional<uint64_t> chaos;
  std::optional<uint64_t> digest_every;
  uint64_t memory_digest_every = 0;
  bool serial = false;
  std::string mode = "auto";
  std::string policy;
};

// What a recording's manifest says of it. Errors: those of describe_machine().
Status describe(const RecordArguments& arguments, vmm::RecordOptions& options) {
  TRY(describe_machine(arguments.machine, options));
  TRY_ASSIGN(options.policy, ept::with_choices({}, arguments.policy));
  log::pb::Manifest& description = options.description;
  const bool parallel =
      arguments.mode == "crew" || (arguments.mode == "auto" && !vmm::needs_serial(description));
  if (arguments.serial || arguments.mode == "serial")
    description.set_mode(std::string(name(vmm::ExecutionMode::kSerial)));
  else if (parallel)
    description.set_mode(
        std::string(name(options.policy.domains ? vmm::ExecutionMode::kDomains : vmm::ExecutionMode::kCrew)));
  description.set_memory_digest_every(arguments.memory_digest_every);
  if (arguments.digest_every.has_value()) description.set_digest_every(*arguments.digest_every);
  return vmm::check_description(description);
}

void say_flat_loops(const vmm::Outcome& outcome) {
  for (size_t vcpu = 0; vcpu < outcome.flat_loops.size(); ++vcpu)
    if (const auto& loop = outcome.flat_loops[vcpu])
      say("vCPU {}: {} computed for {:.1f} s near {:#x} without a place to stop it; other vCPUs and "
          "interrupts "
          "waited (docs/linux.md, \"Programs that compute\")",
          vcpu, loop->program.empty() ? "a program" : loop->program, static_cast<double>(loop->ns) / 1e9,
          loop->address.raw);
}

Result<ExitCode> record(const RecordArguments& arguments) {
  const CleanEnd clean_end("the recording is a prefix, which replays as far as it goes");
  vmm::RecordOptions options;
  TRY(describe(arguments, options));
  options.views = views_or_best(arguments.views);
  options.folder = arguments.folder;
  if (vmm::is_serial(options.description)) {
    TRY_ASSIGN(options.policy, ept::with_choices(ept::serial_policy(), arguments.policy));
  }
  options.policy.chaos = arguments.chaos;
  auto& settings = *options.description.mutable_settings();
  if (options.policy.hold_ns.has_value()) settings.set_hold_us(*options.policy.hold_ns / 1000);
  if (!arguments.policy.empty()) settings.set_policy(arguments.policy);
  if (options.policy.chaos.has_value()) settings.set_chaos_seed(*options.policy.chaos);
  TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
  *options.description.mutable_host() = vmm::to_message(vmm::describe_host(*kvm, options.views));
  TRY_ASSIGN(const auto outcome, run_guest("recording", arguments.machine, *kvm, options));
  if (!outcome.why_no_kernel_clock.empty() && arguments.machine.clock == "auto" && !arguments.machine.json)
    say("clock stops, for {}: a vCPU can be stopped at its exits only", outcome.why_no_kernel_clock);
  if (!outcome.patches_modules && !arguments.machine.json)
    say("this kernel's modules are not patched, for its module_finalize() is not as known: one that executes "
        "rdtsc makes replays differ");
  if (!arguments.machine.json) say_flat_loops(outcome);
  const bool chosen =
      vmm::is_linux(options.description) && arguments.mode == "auto" && !arguments.machine.json;
  return report_outcome(outcome, {.what = chosen ? "recorded, one vCPU at a time" : "recorded",
                                  .serial = vmm::is_serial(options.description),
                                  .json = arguments.machine.json});
}

}  // namespace

void add_record(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<RecordArguments>();
  auto* verb = app.add_subcommand("record", "run a guest and record it");
  add_machine_arguments(*verb, arguments->machine);
  add_views_option(*verb, arguments->views);
  verb->add_option("-o,--output", arguments->folder, "folder to make for the recording; must not exist")
      ->required();
  verb->add_option("--chaos", arguments->chaos, "make rare interleavings common, steered by this seed");
  verb->add_option("--digest-every", arguments->digest_every,
                   "log the register digest at every k-th deterministic exit (1; of a Linux guest 100); 0: "
                   "only at the end");
  verb->add_option("--memory-digest-every", arguments->memory_digest_every,
                   "log a digest of memory and devices at every k-th deterministic exit of each vCPU (mode "
                   "serial); 0: "
                   "only at the end")
      ->capture_default_str();
  verb->add_option("--mode", arguments->mode,
                   "crew: vCPUs in parallel, pages have owners; serial: one vCPU at a time; auto: what the "
                   "guest allows")
      ->check(CLI::IsMember({"auto", "crew", "serial"}))
      ->capture_default_str();
  verb->add_flag("--serial", arguments->serial, "the same as --mode serial");
  verb->add_option("--policy", arguments->policy,
                   "when vCPUs get pages; names are hold, block, grants, exclusive, together and domains "
                   "(docs/cli.md)")
      ->type_name("NAME=VALUE,...");
  verb->callback([arguments, &action] { action = [arguments] { return record(*arguments); }; });
}

}  // namespace reprise::cli
