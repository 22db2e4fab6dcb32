// reprise doctor: what this host can do, and what follows.
#include <memory>

#include "cli/verbs.h"
#include "vmm/kvm/kvm.h"

namespace reprise::cli {

void add_doctor(CLI::App& app, Action& action) {
  auto* verb = app.add_subcommand("doctor", "find out by trying what this host can do");
  verb->callback([&action] {
    action = []() -> Result<ExitCode> {
      TRY_ASSIGN(const auto kvm, vmm::Kvm::open());
      return kOk;
    };
  });
}

}  // namespace reprise::cli
