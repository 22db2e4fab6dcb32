// The options that make a machine, the same for `record` and `run`.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/domain_options.h"
#include "cli/exit_code.h"
#include "vmm/record/record_session.h"

namespace reprise::cli {

struct MachineArguments {
  std::string image;
  DomainArguments domain;  // of a Linux guest, instead of `image`
  std::string kernel;      // of a Linux guest, instead of `image` or the domain's
  std::string initrd;
  std::optional<std::string> append;
  std::vector<std::string> disks;
  std::vector<std::string> kept_writes;
  std::optional<bool> virtio_console;
  std::string clock = "auto";
  double pace = 1;
  std::optional<std::string> memory_file;
  std::vector<std::string> guest_arguments;
  std::optional<uint32_t> vcpus;
  std::optional<uint64_t> memory_mib;
  bool json = false;
};

// --views auto|userfault|mprotect. Nothing stands for auto: the best that the host has.
void add_views_option(CLI::App& verb, std::optional<vmm::ViewKind>& views);
vmm::ViewKind views_or_best(const std::optional<vmm::ViewKind>& views);

// --vcpus, --memory, --json; IMAGE and [-- ARGS], or --kernel or --domain with what a Linux guest can have.
void add_machine_arguments(CLI::App& verb, MachineArguments& arguments);

// --disk FILE[,format=F], where a recorded guest's disk images are now; for ReplayOptions.
void add_moved_disks_option(CLI::App& verb, std::vector<std::string>& disks);
std::vector<vmm::DiskOptions> moved_disks(const std::vector<std::string>& disks);

// Describes the machine, and reads what it starts with. Errors: kNotFound; kUsage, also for a machine that
// cannot be.
Status describe_machine(const MachineArguments& arguments, vmm::RecordOptions& options);

// Runs a guest to its end, shown to the user while it runs (cli/run_display.h). A Linux guest's console is
// the user's terminal. Fills in what `options` says of console and pace. Errors: those of
// vmm::RecordSession.
Result<vmm::Outcome> run_guest(std::string doing, const MachineArguments& arguments, const vmm::Kvm& kvm,
                               vmm::RecordOptions options);

// One sentence on standard error if the guest may use more memory than the host can give.
void warn_of_memory(const log::pb::Manifest& description);

// Whole file. Errors: kNotFound, naming it.
Result<std::vector<uint8_t>> read_file(const std::string& path);

// What tickets count in a run, for people: pages change hands where vCPUs run in parallel, else the turn
// does.
std::string_view transition_name(bool serial);

struct Report {
  std::string_view what;  // "recorded"
  bool serial = false;    // one vCPU at a time
  bool json = false;
};
// One line, or JSON: how the run ended. Returns kOk, or kGuestFailed where the guest said so.
ExitCode report_outcome(const vmm::Outcome& outcome, const Report& report);

}  // namespace reprise::cli
