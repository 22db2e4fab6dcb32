#include "vmm/record/machine_description.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <string>
#include <utility>

#include "vmm/device/disk/disk_image.h"
#include "vmm/device/virtio/virtio_mmio.h"
#include "vmm/guest/bare/pvh.h"
#include "vmm/guest/cpu_model.h"
#include "vmm/guest/linux/kernel_unpack.h"
#include "vmm/guest/linux/linux.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kMiB = 1ull << 20;
// Entries of a CPUID table. KVM before Linux 5.11 took 80; ours have 12 (KVM_MAX_CPUID_ENTRIES,
// arch/x86/include/asm/kvm_host.h).
constexpr int kMaxCpuidEntries = 80;
// The last second of the year 9999, which is as far as a PC's clock counts.
constexpr int64_t kLastSecond = 253'402'300'799;
constexpr size_t kHashDigits = 32;

template <typename... Args>
tl::unexpected<Error> impossible(fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kUsage, format, std::forward<Args>(args)...);
}

Status check_memory(const log::pb::Manifest& description) {
  const bool linux_guest = is_linux(description);
  const uint64_t least = linux_guest ? kMinLinuxRamBytes : kMinRamBytes;
  const uint64_t most = linux_guest ? kMaxLinuxRamBytes : kMaxRamBytes;
  const uint64_t unit = linux_guest ? kMiB : kPageSize;
  const uint64_t bytes = description.memory_bytes();
  if (bytes >= least && bytes <= most && bytes % unit == 0) return {};
  return impossible("{} cannot have {} bytes of memory: {} to {} MiB are possible, in whole {}",
                    linux_guest ? "a Linux guest" : "a machine", bytes, least / kMiB, most / kMiB,
                    linux_guest ? "MiB" : "pages");
}

Result<ExecutionMode> mode_of(const log::pb::Manifest& description) {
  const auto* const found = std::ranges::find(kModeNames, description.mode());
  if (found == kModeNames.end())
    return impossible("there is no mode \"{}\": known are {}", description.mode(),
                      fmt::join(kModeNames, ", "));
  return static_cast<ExecutionMode>(found - kModeNames.begin());
}

Status check_mode(const log::pb::Manifest& description) {
  TRY_ASSIGN(const ExecutionMode mode, mode_of(description));
  if (is_linux(description) && mode != ExecutionMode::kSerial)
    return impossible(
        "a Linux kernel has no safepoints, so its vCPUs cannot be recorded in parallel: use --mode serial, "
        "or "
        "auto");
  // To carry out single instructions, halts are put into code (vmm/step/breakpoint_step.h), which others
  // must not execute.
  if (description.clock() == name(ClockKind::kBranches) && mode != ExecutionMode::kSerial)
    return impossible("--clock branches needs one vCPU at a time: use --mode serial, or auto");
  if (description.memory_digest_every() != 0 && mode != ExecutionMode::kSerial)
    return impossible(
        "--memory-digest-every needs one vCPU at a time, for else memory has no state at a stop: add --mode "
        "serial");
  return {};
}

// What counts ticks. In format version 1 it was not said.
Result<ClockKind> clock_of(const log::pb::Manifest& description) {
  if (description.clock().empty()) return is_linux(description) ? ClockKind::kStops : ClockKind::kSafepoints;
  const auto* const found = std::ranges::find(kClockNames, description.clock());
  if (found == kClockNames.end())
    return impossible("there is no clock \"{}\": known are {}", description.clock(),
                      fmt::join(kClockNames, ", "));
  const auto clock = static_cast<ClockKind>(found - kClockNames.begin());
  const bool of_images = clock == ClockKind::kSafepoints || clock == ClockKind::kBranches;
  if (clock == ClockKind::kAuto || of_images != is_linux(description)) return clock;
  return impossible("{} has no clock \"{}\": use --clock {}, or auto",
                    is_linux(description) ? "a Linux kernel" : "a bare-metal image", description.clock(),
                    is_linux(description) ? "kernel or stops" : "safepoints or branches");
}

Status check_command_line(const log::pb::Manifest& description) {
  const std::string& given = description.command_line();
  const size_t own = is_linux(description) ? linux_command_line("").size() : 0;
  const size_t most = is_linux(description) ? kMaxLinuxCommandLine : kMaxCommandLine;
  if (own + given.size() <= most && given.find('\0') == std::string::npos) return {};
  return impossible("the guest's command line has {} bytes: at most {} without a zero are possible",
                    given.size(), most - own);
}

Status check_cpuid(const log::pb::Manifest& description) {
  const auto& table = description.cpuid();
  if (table.empty() || table.size() > kMaxCpuidEntries)
    return impossible("a processor cannot be described by {} CPUID entries: 1 to {} are possible",
                      table.size(), kMaxCpuidEntries);
  std::set<std::pair<uint32_t, uint32_t>> seen;
  for (const auto& entry : table) {
    if (!seen.emplace(entry.function(), entry.index()).second)
      return impossible("CPUID leaf {:#x}, sub-leaf {:#x} is there twice", entry.function(), entry.index());
    if ((entry.flags() & ~uint32_t{KVM_CPUID_FLAG_SIGNIFCANT_INDEX}) != 0)
      return impossible("CPUID leaf {:#x} has flags {:#x}: {:#x} is possible", entry.function(),
                        entry.flags(), uint32_t{KVM_CPUID_FLAG_SIGNIFCANT_INDEX});
    // Linear addresses: KVM refuses any other width. Source: kvm_check_cpuid(), arch/x86/kvm/cpuid.c.
    const uint32_t width = entry.eax() >> 8 & 0xff;
    if (entry.function() == 0x80000008 && width != 48 && width != 57 && width != 0)
      return impossible("CPUID leaf 0x80000008 says {} bits of linear address: 48 or 57 are possible", width);
  }
  for (const uint32_t needed : {0u, 1u})
    if (!seen.contains({needed, 0})) return impossible("the CPUID table has no leaf {}", needed);
  return {};
}

Status check_disks(const log::pb::Manifest& description) {
  if (description.disks_size() > static_cast<int>(kDiskSlots.size()))
    return impossible("{} disks asked for, a Linux guest can have up to {}", description.disks_size(),
                      kDiskSlots.size());
  for (const auto& disk : description.disks()) {
    if (!disk.format().empty() && std::ranges::find(kDiskFormats, disk.format()) == kDiskFormats.end())
      return impossible("the disk image {} has the format \"{}\": known are {}", disk.original_path(),
                        disk.format(), fmt::join(kDiskFormats, ", "));
    if (disk.serial().size() > kMaxSerialBytes || disk.serial().find('\0') != std::string::npos)
      return impossible(
          "the serial number of the disk image {} has {} bytes: at most {} without a zero are possible",
          disk.original_path(), disk.serial().size(), kMaxSerialBytes);
  }
  return {};
}

Status check_devices(const log::pb::Manifest& description) {
  if (!is_linux(description)) {
    if (description.has_initrd() || !description.disks().empty() || !description.virtio().empty())
      return impossible("only a Linux guest can have an initial RAM disk, a disk or virtio devices");
    return {};
  }
  std::set<std::string_view> seen;
  for (const auto& name : description.virtio()) {
    if (name != kVirtioRandomName && name != kVirtioConsoleName)
      return impossible("there is no virtio device \"{}\": known are {} and {}", name, kVirtioRandomName,
                        kVirtioConsoleName);
    if (!seen.insert(name).second) return impossible("the virtio device {} is there twice", name);
  }
  return check_disks(description);
}

DigestScope scope_of(const log::pb::Manifest& description) {
  if (description.compares_all_registers()) return DigestScope::kAll;
  return description.compares_mxcsr() ? DigestScope::kWithMxcsr : DigestScope::kWithoutMxcsr;
}

// What a recording says of a disk. Of a machine that is to be recorded, the image itself is looked at.
Status check_recorded_disk(const log::pb::Disk& disk) {
  const std::filesystem::path path = disk.original_path();
  if (!path.is_absolute() || disk.original_path().find('\0') != std::string::npos)
    return impossible("its disk has the path \"{}\", needed is an absolute one", path.string());
  if (disk.size() == 0 || disk.size() % kSectorBytes != 0)
    return impossible("its disk has {} bytes, needed is a multiple of {}", disk.size(), kSectorBytes);
  if (disk.xxh3_128().size() != kHashDigits ||
      disk.xxh3_128().find_first_not_of("0123456789abcdef") != std::string::npos)
    return impossible("the hash of its disk is no hash");
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  // One that is not there can be named otherwise (--disk).
  if (!std::filesystem::exists(status) || std::filesystem::is_regular_file(status) ||
      std::filesystem::is_block_file(status))
    return {};
  return impossible("it names {} as its disk, which is no regular file and no block device", path.string());
}

// But for its disks, which may be elsewhere.
Status try_to_load(const log::Recording& recording) {
  TRY_ASSIGN(
      MachineOptions options,
      to_machine_options(recording.manifest(), {.image = recording.image(), .initrd = recording.initrd()}));
  if (options.linux_guest.has_value()) options.linux_guest->disks.clear();
  return load_guest(options, {}).map([](const LoadedGuest&) {});
}

Status damaged(const log::Recording& recording, const Error& why) {
  return fail(ErrorCode::kDamaged, "{} describes a machine that cannot be: {}", recording.folder().string(),
              why.message);
}

}  // namespace

log::pb::Manifest new_description(bool linux_guest) {
  log::pb::Manifest description;
  description.set_tool_version(REPRISE_VERSION);
  description.set_vcpus(1);
  description.set_memory_bytes((linux_guest ? 256 : 64) * kMiB);
  description.set_mode(std::string(name(linux_guest ? ExecutionMode::kSerial : ExecutionMode::kCrew)));
  description.set_cpu_model(std::string(linux_guest ? kLinuxCpuModelName : kCpuModelName));
  to_message(linux_guest ? linux_cpu_model() : cpu_model(), *description.mutable_cpuid());
  description.set_clock(std::string(name(ClockKind::kAuto)));
  description.set_compares_mxcsr(true);
  description.set_compares_all_registers(true);
  description.set_filters_msrs(true);
  // A Linux guest stops a hundred times as often.
  description.set_digest_every(linux_guest ? 100 : 1);
  description.set_start_unix_seconds(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  if (linux_guest) {
    description.set_boot(std::string(kBootLinux));
    description.add_virtio(std::string(kVirtioRandomName));
  }
  return description;
}

bool is_linux(const log::pb::Manifest& description) {
  return description.boot() == kBootLinux;
}

bool needs_serial(const log::pb::Manifest& description) {
  return is_linux(description) || description.clock() == name(ClockKind::kBranches);
}

bool is_serial(const log::pb::Manifest& description) {
  return description.mode() == name(ExecutionMode::kSerial);
}

Status check_description(const log::pb::Manifest& description) {
  if (!description.boot().empty() && !is_linux(description))
    return impossible("there is no way to boot called \"{}\": known is {}", description.boot(), kBootLinux);
  const uint32_t most = is_linux(description) ? kMaxLinuxVcpus : kMaxVcpus;
  if (description.vcpus() < 1 || description.vcpus() > most)
    return impossible("{} vCPUs asked for, {} can have 1 to {}", description.vcpus(),
                      is_linux(description) ? "a Linux guest" : "a machine", most);
  TRY(check_memory(description));
  TRY(check_mode(description));
  TRY(clock_of(description));
  TRY(check_command_line(description));
  TRY(check_cpuid(description));
  TRY(check_devices(description));
  const int64_t start = description.start_unix_seconds();
  if (start < 0 || start > kLastSecond)
    return impossible("the machine starts {} seconds after 1970: 0 to {} are possible", start, kLastSecond);
  return {};
}

Result<MachineOptions> to_machine_options(const log::pb::Manifest& description, GuestFiles files) {
  TRY(check_description(description));
  MachineOptions machine;
  machine.vcpus = description.vcpus();
  machine.memory_bytes = description.memory_bytes();
  machine.image = std::move(files.image);
  machine.command_line = description.command_line();
  machine.cpuid = from_message(description.cpuid());
  TRY_ASSIGN(machine.mode, mode_of(description));
  machine.digest_scope = scope_of(description);
  machine.msr_filter = description.filters_msrs() ? MsrFilter::kAllowList : MsrFilter::kFourDenied;
  TRY_ASSIGN(machine.clock, clock_of(description));
  machine.start_unix_seconds = description.start_unix_seconds();
  machine.memory_digest_every = description.memory_digest_every();
  if (!is_linux(description)) return machine;
  const auto has = [&](std::string_view name) {
    return std::ranges::find(description.virtio(), name) != description.virtio().end();
  };
  machine.linux_guest = MachineOptions::Linux{.initrd = std::move(files.initrd),
                                              .virtio_random = has(kVirtioRandomName),
                                              .virtio_console = has(kVirtioConsoleName)};
  for (const auto& disk : description.disks())
    machine.linux_guest->disks.push_back(
        {.path = disk.original_path(),
         .format = disk.format(),
         .traits = {
             .read_only = disk.read_only(), .can_discard = disk.can_discard(), .serial = disk.serial()}});
  return machine;
}

Status check_recorded(const log::Recording& recording) {
  const log::pb::Manifest& manifest = recording.manifest();
  Status checked = check_description(manifest);
  if (checked && manifest.clock() == name(ClockKind::kAuto))
    checked = impossible("it does not say which clock");
  for (const auto& disk : manifest.disks())
    if (checked) checked = check_recorded_disk(disk);
  return checked ? checked : damaged(recording, checked.error());
}

Status check_loads(const log::Recording& recording) {
  TRY(check_recorded(recording));
  Status loaded = try_to_load(recording);
  // The host may lack what it takes to find out.
  return loaded || loaded.error().code == ErrorCode::kHost ? loaded : damaged(recording, loaded.error());
}

}  // namespace reprise::vmm
