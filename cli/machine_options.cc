#include "cli/machine_options.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>

#include "base/time.h"
#include "cli/output.h"
#include "cli/raw_terminal.h"
#include "cli/run_display.h"
#include "log/event_text.h"
#include "vmm/host/host_memory.h"
#include "vmm/host/host_profile.h"
#include "vmm/host/memory_watch.h"

namespace reprise::cli {
namespace {

std::string_view reason_name(vmm::StopReason reason) {
  switch (reason) {
    case vmm::StopReason::kGuestExit:
      return "guest exit";
    case vmm::StopReason::kInterrupted:
      return "interrupted";
    case vmm::StopReason::kAllHalted:
      return "all halted";
    case vmm::StopReason::kGuestError:
      return "guest error";
    case vmm::StopReason::kLogEnded:
      return "end of the recorded prefix";
  }
  return "unknown";
}

nlohmann::json crew_json(const vmm::Outcome& outcome) {
  ept::CrewTimes sum;
  for (const auto& times : outcome.crew) {
    sum.transfers += times.transfers;
    sum.uncontended += times.uncontended;
    sum.wait_ns += times.wait_ns;
    sum.grant_ns += times.grant_ns;
    sum.revoke_ns += times.revoke_ns;
    sum.revokes += times.revokes;
  }
  return {{"transfers", sum.transfers}, {"uncontended", sum.uncontended}, {"revokes", sum.revokes},
          {"wait_ns", sum.wait_ns},     {"grant_ns", sum.grant_ns},       {"revoke_ns", sum.revoke_ns}};
}

nlohmann::json flat_loop_json(const vmm::Outcome& outcome, size_t vcpu) {
  if (vcpu >= outcome.flat_loops.size() || !outcome.flat_loops[vcpu].has_value()) return nullptr;
  const vmm::FlatLoop& loop = *outcome.flat_loops[vcpu];
  return {{"program", loop.program}, {"address", loop.address.raw}, {"ns", loop.ns}};
}

nlohmann::json vcpus_json(const vmm::Outcome& outcome) {
  auto list = nlohmann::json::array();
  for (size_t i = 0; i < outcome.vcpus.size(); ++i) {
    const auto& v = outcome.vcpus[i];
    list.push_back({{"stops", v.stops},
                    {"traps", v.traps},
                    {"faults", v.faults},
                    {"port_io", v.port_io},
                    {"mmio", v.mmio},
                    {"halts", v.halts},
                    {"interrupts", v.interrupts},
                    {"windows", v.windows},
                    {"msrs", v.msrs},
                    {"times", v.times},
                    {"pauses", v.pauses},
                    {"spins", v.spins},
                    {"breakpoints", v.breakpoints},
                    {"modules", v.modules},
                    {"module_patches", v.module_patches},
                    {"host_faults", v.host_faults},
                    {"decode_ns", v.decode_ns},
                    {"flat_loop", flat_loop_json(outcome, i)},
                    {"register_digest", fmt::format("{:016x}", outcome.register_digests[i])}});
  }
  return list;
}

nlohmann::json times_json(const vmm::Outcome& outcome) {
  auto list = nlohmann::json::array();
  for (const auto& split : outcome.times) list.push_back(log::to_json(split));
  return list;
}

// Source: Linux' Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header": boot_flag and header.
bool is_bzimage(std::span<const uint8_t> file) {
  constexpr size_t kBootFlag = 0x1fe, kHeader = 0x202;
  constexpr std::string_view kHeaderMagic = "HdrS";
  return file.size() >= kHeader + kHeaderMagic.size() && file[kBootFlag] == 0x55 &&
         file[kBootFlag + 1] == 0xaa &&
         std::equal(kHeaderMagic.begin(), kHeaderMagic.end(), file.begin() + kHeader);
}

// FILE[,format=F][,serial=S][,read-only]. What is none of these is part of the file's name.
log::pb::Disk disk_of(std::string words) {
  log::pb::Disk disk;
  disk.set_can_discard(true);
  for (size_t comma = words.rfind(','); comma != std::string::npos; comma = words.rfind(',')) {
    constexpr std::string_view kFormat = "format=", kSerial = "serial=";
    const std::string word = words.substr(comma + 1);
    if (word == "read-only")
      disk.set_read_only(true);
    else if (word.starts_with(kFormat))
      disk.set_format(word.substr(kFormat.size()));
    else if (word.starts_with(kSerial))
      disk.set_serial(word.substr(kSerial.size()));
    else
      break;
    words.resize(comma);
  }
  disk.set_original_path(words);
  return disk;
}

}  // namespace

void add_moved_disks_option(CLI::App& verb, std::vector<std::string>& disks) {
  verb.add_option(
          "--disk", disks,
          "FILE[,format=F]: where the guest's disk image is, if it is not where it was recorded; of several, "
          "once for each")
      ->allow_extra_args(false);
}

std::vector<vmm::DiskOptions> moved_disks(const std::vector<std::string>& disks) {
  std::vector<vmm::DiskOptions> moved;
  for (const std::string& words : disks) {
    const log::pb::Disk disk = disk_of(words);
    moved.push_back({.path = disk.original_path(), .format = disk.format()});
  }
  return moved;
}

void add_views_option(CLI::App& verb, std::optional<vmm::ViewKind>& views) {
  const auto choose = [&views](const std::string& name) {
    views.reset();
    if (name == "userfault") views = vmm::ViewKind::kUserfault;
    if (name == "mprotect") views = vmm::ViewKind::kMprotect;
  };
  verb.add_option_function<std::string>(
          "--views", choose, "how pages are taken from vCPUs; auto: userfault where the host has it")
      ->check(CLI::IsMember({"auto", "userfault", "mprotect"}))
      ->default_str("auto");
}

vmm::ViewKind views_or_best(const std::optional<vmm::ViewKind>& views) {
  return views.has_value() ? *views : vmm::best_views();
}

void add_machine_arguments(CLI::App& verb, MachineArguments& arguments) {
  verb.add_option("--vcpus", arguments.vcpus, "virtual CPUs, 1 to 32 (1)")->check(CLI::Range(1u, kMaxVcpus));
  verb.add_option("--memory", arguments.memory_mib, "guest RAM in MiB (64; with --kernel 256)")
      ->check(CLI::Range(2u, 64512u));
  verb.add_flag("--json", arguments.json,
                "report as JSON on standard output; the guest's console goes to standard error");
  verb.add_option("image", arguments.image, "guest image, an ELF file with a PVH note");
  verb.add_option("--kernel", arguments.kernel,
                  "Linux kernel (bzImage or vmlinux) to run instead of an image")
      ->excludes("image");
  verb.add_option("--initrd", arguments.initrd, "its initial RAM disk");
  verb.add_option("--append", arguments.append, "its command line");
  verb.add_option(
          "--disk", arguments.disks,
          "FILE[,format=F][,serial=S][,read-only]: image of a disk, which is not altered; up to four, in "
          "the order of /dev/vda, vdb; format: raw, or another that qemu-nbd reads, such as qcow2")
      ->allow_extra_args(false);
  verb.add_option(
          "--keep-writes", arguments.kept_writes,
          "qcow2 image to make with what the guest wrote to its disk, based on the disk's image; of several "
          "disks, once for each")
      ->allow_extra_args(false);
  const auto choose_console = [&arguments](const std::string& name) {
    arguments.virtio_console = name == "virtio";
  };
  verb.add_option_function<std::string>("--console", choose_console,
                                        "where keys go: serial (ttyS0) or virtio (hvc0)")
      ->check(CLI::IsMember({"serial", "virtio"}))
      ->default_str("serial");
  add_domain_options(verb, arguments.domain);
  verb.add_option(
          "--clock", arguments.clock,
          "what counts ticks, at which a vCPU can be stopped: safepoints (of a compiled image), kernel "
          "(function entries of a Linux kernel), branches (conditional branches, counted by the processor), "
          "stops (exits only); auto: the best that the guest has")
      ->check(CLI::IsMember(std::vector<std::string>(vmm::kClockNames.begin(), vmm::kClockNames.end())))
      ->capture_default_str();
  verb.add_option("--save-memory", arguments.memory_file,
                  "file to make with the guest's memory as it is in the end");
  verb.add_option("--pace", arguments.pace,
                  "seconds that pass for the guest in one second of its work; less than 1 where its timers "
                  "would keep it from working")
      ->check(CLI::Range(0.001, 1.0))
      ->capture_default_str();
  verb.add_option("args", arguments.guest_arguments, "the guest's command line, after --");
}

Result<std::vector<uint8_t>> read_file(const std::string& path) {
  if (std::filesystem::is_directory(path))
    return fail(ErrorCode::kNotFound, "{} is a folder, needed is a file", path);
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail_errno(ErrorCode::kNotFound, errno, fmt::format("cannot open {}", path));
  std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return fail(ErrorCode::kNotFound, "cannot read {}", path);
  return bytes;
}

namespace {

// Elements of a domain's definition that options say instead.
std::set<std::string> replaced_by(const MachineArguments& arguments) {
  std::set<std::string> replaced;
  if (arguments.vcpus.has_value()) replaced.insert("vcpu");
  if (arguments.memory_mib.has_value()) replaced.insert("memory");
  // An initial RAM disk belongs to its kernel.
  if (!arguments.kernel.empty()) replaced.insert({"kernel", "initrd"});
  if (!arguments.initrd.empty()) replaced.insert("initrd");
  if (arguments.append.has_value()) replaced.insert("cmdline");
  if (!arguments.disks.empty()) replaced.insert("disk");
  return replaced;
}

Status check_usage(const MachineArguments& arguments) {
  const bool linux_guest = arguments.domain.are_given() || !arguments.kernel.empty();
  if (arguments.image.empty() && !linux_guest)
    return fail(ErrorCode::kUsage,
                "nothing to run: name a guest image, or a Linux kernel with --kernel (--help shows all)");
  const bool for_linux = !arguments.initrd.empty() || arguments.append.has_value() ||
                         !arguments.disks.empty() || arguments.virtio_console.has_value();
  if (for_linux && !linux_guest)
    return fail(ErrorCode::kUsage,
                "--initrd, --append, --disk and --console are for a Linux guest: name its kernel with "
                "--kernel, or a domain with --domain");
  return {};
}

void choose_console(bool is_virtio, log::pb::Manifest& machine) {
  auto& virtio = *machine.mutable_virtio();
  virtio.erase(std::remove(virtio.begin(), virtio.end(), vmm::kVirtioConsoleName), virtio.end());
  if (is_virtio) machine.add_virtio(std::string(vmm::kVirtioConsoleName));
}

// What options say.
void apply(const MachineArguments& arguments, log::pb::Manifest& machine) {
  if (arguments.vcpus.has_value()) machine.set_vcpus(*arguments.vcpus);
  if (arguments.memory_mib.has_value()) machine.set_memory_bytes(*arguments.memory_mib << 20);
  machine.set_clock(arguments.clock);
  if (vmm::needs_serial(machine)) machine.set_mode(std::string(name(vmm::ExecutionMode::kSerial)));
  if (!vmm::is_linux(machine)) {
    machine.mutable_image()->set_original_path(arguments.image);
    machine.set_command_line(fmt::format("{}", fmt::join(arguments.guest_arguments, " ")));
    return;
  }
  if (!arguments.kernel.empty()) machine.mutable_image()->set_original_path(arguments.kernel);
  if (!arguments.initrd.empty()) machine.mutable_initrd()->set_original_path(arguments.initrd);
  if (arguments.append.has_value()) machine.set_command_line(*arguments.append);
  for (const std::string& words : arguments.disks) *machine.add_disks() = disk_of(words);
  if (arguments.virtio_console.has_value()) choose_console(*arguments.virtio_console, machine);
}

// Before the guest runs for nothing.
Status check_kept_writes(const std::vector<std::string>& files, const log::pb::Manifest& machine) {
  if (files.size() > static_cast<size_t>(machine.disks_size()))
    return fail(ErrorCode::kUsage, "--keep-writes names {}, the machine has {}",
                counted(files.size(), "file"), counted(static_cast<uint64_t>(machine.disks_size()), "disk"));
  for (const std::string& file : files) {
    std::error_code error;
    if (std::filesystem::exists(file, error))
      return fail(ErrorCode::kUsage, "{} exists already: --keep-writes makes a new file", file);
  }
  return {};
}

// The files that the description names, but for disks.
Result<vmm::GuestFiles> read_guest_files(log::pb::Manifest& machine) {
  vmm::GuestFiles files;
  const std::string& image = machine.image().original_path();
  TRY_ASSIGN(files.image, read_file(image));
  if (!vmm::is_linux(machine) && is_bzimage(files.image))
    return fail(ErrorCode::kUsage, "{} is a Linux kernel (bzImage): name it with --kernel", image);
  if (!machine.has_initrd()) return files;
  TRY_ASSIGN(files.initrd, read_file(machine.initrd().original_path()));
  if (files.initrd.empty()) machine.clear_initrd();
  return files;
}

}  // namespace

Status describe_machine(const MachineArguments& arguments, vmm::RecordOptions& options) {
  TRY(check_usage(arguments));
  log::pb::Manifest& machine = options.description;
  if (arguments.domain.are_given()) {
    TRY_ASSIGN(machine, describe_domain(arguments.domain, replaced_by(arguments), arguments.json));
  } else {
    machine = vmm::new_description(!arguments.kernel.empty());
  }
  apply(arguments, machine);
  TRY(check_kept_writes(arguments.kept_writes, machine));
  TRY_ASSIGN(options.files, read_guest_files(machine));
  return vmm::check_description(machine);
}

Result<vmm::Outcome> run_guest(std::string doing, const MachineArguments& arguments, const vmm::Kvm& kvm,
                               vmm::RecordOptions options) {
  options.pace = arguments.pace;
  options.memory_file = arguments.memory_file;
  options.kept_writes = {arguments.kept_writes.begin(), arguments.kept_writes.end()};
  warn_of_memory(options.description);
  const bool has_input = vmm::is_linux(options.description);
  const RawTerminal terminal(has_input);
  if (has_input) options.console_input = STDIN_FILENO;
  if (terminal.is_terminal()) {
    options.console_escape = kEscapeKey;
    say("keys go to the guest; Ctrl-] ends the run");
  }
  RunDisplay display({.doing = std::move(doing),
                      .transition = transition_name(vmm::is_serial(options.description)),
                      .json = arguments.json});
  options.console = display.console();
  TRY_ASSIGN(const auto session, vmm::RecordSession::create(kvm, std::move(options)));
  vmm::MemoryWatch memory;
  std::optional<std::string> shortage;
  drive(*session, display, [&] {
    if (shortage.has_value()) return;
    shortage = memory.look(monotonic_ns());
    if (shortage.has_value()) session->stop();
  });
  TRY_ASSIGN(auto outcome, session->wait());
  if (shortage.has_value() && outcome.stop.reason == vmm::StopReason::kInterrupted)
    return fail(ErrorCode::kHost, "{}", *shortage);
  return outcome;
}

void warn_of_memory(const log::pb::Manifest& description) {
  const std::string warning = vmm::memory_warning(description.memory_bytes(), vmm::available_memory());
  if (!warning.empty()) say("{}", warning);
}

std::string_view transition_name(bool serial) {
  return serial ? "turn change" : "page transition";
}

ExitCode report_outcome(const vmm::Outcome& outcome, const Report& report) {
  const bool failed = outcome.stop.reason == vmm::StopReason::kGuestError ||
                      outcome.stop.reason == vmm::StopReason::kAllHalted ||
                      (outcome.stop.reason == vmm::StopReason::kGuestExit && outcome.stop.status != 0);
  if (report.json) {
    const nlohmann::json message = {{"verb", report.what},
                                    {"reason", reason_name(outcome.stop.reason)},
                                    {"guest_status", outcome.stop.status},
                                    {"message", outcome.stop.message},
                                    {"wall_ns", outcome.wall_ns},
                                    {"tickets", outcome.tickets},
                                    {"log_bytes", outcome.log_bytes},
                                    {"clock", vmm::name(outcome.clock)},
                                    {"patches_modules", outcome.patches_modules},
                                    {"memory_digest", fmt::format("{:016x}", outcome.memory_digest)},
                                    {"vcpus", vcpus_json(outcome)},
                                    {"crew", crew_json(outcome)},
                                    {"times", times_json(outcome)}};
    print_json(message);
  } else {
    std::string how(reason_name(outcome.stop.reason));
    if (outcome.stop.reason == vmm::StopReason::kGuestExit)
      how += fmt::format(", status {}", outcome.stop.status);
    if (!outcome.stop.message.empty()) how += ": " + outcome.stop.message;
    // After a debugger's session there is no duration: it went back and forth.
    const std::string duration =
        outcome.wall_ns != 0 ? fmt::format("{:.3f} s, ", static_cast<double>(outcome.wall_ns) / 1e9) : "";
    // An interrupted replay has not come to a state that could be compared.
    const std::string digest =
        outcome.register_digests.empty() ? "" : fmt::format(", digest {:016x}", outcome.memory_digest);
    say("{}: {}; {}{}{}", report.what, how, duration,
        counted(outcome.tickets, transition_name(report.serial)), digest);
  }
  return failed ? kGuestFailed : kOk;
}

}  // namespace reprise::cli
