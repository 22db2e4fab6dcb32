// reprise run: run a guest without recording it, to compare with.
#include <memory>

#include "cli/interrupt.h"
#include "cli/machine_options.h"
#include "cli/verbs.h"

namespace reprise::cli {

void add_run(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<MachineArguments>();
  auto* verb = app.add_subcommand("run", "run a guest without recording it; any PVH image will do");
  add_machine_arguments(*verb, *arguments);
  verb->callback([arguments, &action] {
    action = [arguments]() -> Result<ExitCode> {
      const CleanEnd clean_end("the guest was ended where it was");
      vmm::RecordOptions options;
      TRY(describe_machine(*arguments, options));
      options.free_run = true;
      if (vmm::is_serial(options.description)) options.policy = ept::serial_policy();
      TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
      TRY_ASSIGN(const auto outcome, run_guest("running", *arguments, *kvm, options));
      return report_outcome(
          outcome, {.what = "ran", .serial = vmm::is_serial(options.description), .json = arguments->json});
    };
  });
}

}  // namespace reprise::cli
