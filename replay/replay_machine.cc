#include "replay/replay_machine.h"

#include <algorithm>

#include "vmm/device/disk/disk_image.h"
#include "vmm/guest/cpu_model.h"
#include "vmm/host/host_profile.h"

namespace reprise::replay {
namespace {

// Where the disk image is, if the guest has one. Errors: kNotFound, kUsage.
Result<std::optional<std::filesystem::path>> disk_of(const log::pb::Manifest& manifest,
                                                     const std::optional<std::filesystem::path>& disk) {
  if (!manifest.has_disk()) {
    if (disk.has_value())
      return fail(ErrorCode::kUsage, "the recorded guest had no disk: --disk makes no sense here");
    return std::optional<std::filesystem::path>();
  }
  const std::filesystem::path path = disk.value_or(manifest.disk().original_path());
  std::error_code error;
  if (std::filesystem::exists(path, error)) return std::optional(path);
  return fail(
      ErrorCode::kNotFound,
      "the recorded guest's disk image {} is not there: name with --disk where it is now ({} bytes, hash {})",
      path.string(), manifest.disk().size(), manifest.disk().xxh3_128());
}

// Errors: kDamaged; kHost.
Status check_disk(const log::pb::Image& recorded, const vmm::DiskImage& disk) {
  TRY_ASSIGN(const std::string found, disk.hash());
  if (found == recorded.xxh3_128()) return {};
  return fail(ErrorCode::kDamaged,
              "{} is not the disk image that was recorded: its hash is {}, recorded was {}; name the right "
              "one with --disk",
              disk.path().string(), found, recorded.xxh3_128());
}

Status add_virtio(const log::pb::Manifest& manifest, vmm::MachineOptions::Linux& guest) {
  guest.virtio_random = false;
  for (const auto& name : manifest.virtio()) {
    if (name == vmm::kVirtioRandomName)
      guest.virtio_random = true;
    else if (name == vmm::kVirtioConsoleName)
      guest.virtio_console = true;
    else
      return fail(ErrorCode::kDamaged,
                  "the manifest says that the guest has a virtio device {}, which this program does not know",
                  name);
  }
  return {};
}

Result<vmm::MachineOptions> machine_of(const log::Recording& recording, const vmm::Kvm& kvm,
                                       vmm::ViewKind views,
                                       const std::optional<std::filesystem::path>& disk) {
  const auto& manifest = recording.manifest();
  vmm::MachineOptions machine;
  machine.vcpus = manifest.vcpus();
  machine.memory_bytes = manifest.memory_bytes();
  machine.image = recording.image();
  machine.command_line = manifest.command_line();
  machine.serial = manifest.mode() == "serial";
  if (manifest.memory_digest_every() != 0 && !machine.serial)
    return fail(ErrorCode::kDamaged,
                "the manifest says that memory was compared at stops, which only mode serial can");
  machine.views = views;
  machine.memory_digest_every = manifest.memory_digest_every();
  machine.digest_scope = scope_of(manifest);
  machine.msr_filter = manifest.filters_msrs() ? vmm::MsrFilter::kAllowList : vmm::MsrFilter::kFourDenied;
  machine.start_unix_seconds = manifest.start_unix_seconds();
  if (manifest.boot() == "linux") {
    auto& guest = machine.linux_guest.emplace(vmm::MachineOptions::Linux{});
    if (manifest.has_initrd()) guest.initrd = recording.initrd();
    TRY(add_virtio(manifest, guest));
    TRY_ASSIGN(guest.disk, disk_of(manifest, disk));
  } else if (!manifest.boot().empty()) {
    return fail(ErrorCode::kDamaged,
                "the manifest says that the guest boots by {}, which this program does not know",
                manifest.boot());
  }
  if (!machine.serial) TRY(vmm::check_stops_alike(manifest.host(), vmm::describe_host(kvm, views)));
  machine.cpuid = vmm::from_message(manifest.cpuid());
  TRY_ASSIGN(const auto host, kvm.supported_cpuid());
  TRY(vmm::check_cpu_model(machine.cpuid, host));
  return machine;
}

tl::unexpected<Error> end_differs(std::string_view what, uint64_t expected, uint64_t found) {
  return fail(
      ErrorCode::kDivergence,
      "the replay differs from the recording at its end: {}\n  recorded: {:#018x}\n  replayed: {:#018x}",
      what, expected, found);
}

// The same machine in the end: console, memory, registers, and every ticket exactly once.
Status compare_end(const log::pb::Final& final, const std::string& console, const vmm::Outcome& run,
                   const PageOrder& order) {
  if (console != run.console) {
    const auto [recorded, replayed] =
        std::mismatch(console.begin(), console.end(), run.console.begin(), run.console.end());
    return fail(ErrorCode::kDivergence,
                "the replay differs from the recording at its end: console output differs from byte {} on "
                "({} bytes recorded, {} "
                "replayed)",
                recorded - console.begin(), console.size(), run.console.size());
  }
  if (final.ram_digest() != run.memory_digest)
    return end_differs("memory, devices or disk", final.ram_digest(), run.memory_digest);
  for (int i = 0; i < final.register_digests_size(); ++i)
    if (final.register_digests(i) != run.register_digests[static_cast<size_t>(i)])
      return end_differs(fmt::format("registers of vCPU {}", i), final.register_digests(i),
                         run.register_digests[static_cast<size_t>(i)]);
  if (final.tickets() != order.tickets_counted())
    return fail(ErrorCode::kDamaged, "the recording's end says {} tickets, its logs have {}", final.tickets(),
                order.tickets_counted());
  uint64_t expected = 0;
  for (uint64_t ticket = 1; ticket <= final.tickets(); ++ticket)
    expected += PageOrder::ticket_hash(Ticket(ticket));
  if (expected != order.ticket_sum()) return end_differs("the set of tickets", expected, order.ticket_sum());
  return {};
}

vmm::DigestScope scope_of(const log::pb::Manifest& manifest) {
  if (manifest.compares_all_registers()) return vmm::DigestScope::kAll;
  return manifest.compares_mxcsr() ? vmm::DigestScope::kWithMxcsr : vmm::DigestScope::kWithoutMxcsr;
}

}  // namespace

Result<std::unique_ptr<ReplayMachine>> ReplayMachine::create(const vmm::Kvm& kvm,
                                                             const log::Recording& recording,
                                                             TotalOrder* total, vmm::ViewKind views,
                                                             const std::optional<std::filesystem::path>& disk,
                                                             vmm::ConsoleSink console) {
  TRY_ASSIGN(auto options, machine_of(recording, kvm, views, disk));
  options.note_writes = total != nullptr;
  // Read before anything runs: what is damaged is refused first.
  std::string recorded;
  if (recording.final().has_value()) {
    TRY_ASSIGN(recorded, recording.console());
  }
  std::unique_ptr<ReplayMachine> replay(new ReplayMachine(recording, std::move(recorded)));
  TRY_ASSIGN(replay->machine_,
             vmm::Machine::create(kvm, options,
                                  [written = &replay->console_, console = std::move(console)](uint8_t byte) {
                                    written->push_back(static_cast<char>(byte));
                                    if (console) console(byte);
                                  }));
  vmm::Machine& machine = *replay->machine_;
  if (machine.disk() != nullptr) TRY(check_disk(recording.manifest().disk(), *machine.disk()));
  // Where vCPUs run one at a time, nobody can wait for anybody.
  replay->order_ =
      std::make_unique<PageOrder>(machine.ownership_pages(), total == nullptr ? machine.vcpus() : 1);
  for (uint32_t i = 0; i < machine.vcpus(); ++i) {
    TRY_ASSIGN(auto reader, recording.open_log(VcpuId(i)));
    replay->journals_.push_back(std::make_unique<ReplayJournal>(VcpuId(i), std::move(reader), *replay->order_,
                                                                total, machine.view(VcpuId(i)),
                                                                recording.manifest().digest_every()));
  }
  return replay;
}

Result<ReplayOutcome> ReplayMachine::finish() {
  ReplayOutcome outcome;
  outcome.run.console = console_;
  if (machine_->disk() != nullptr) TRY(machine_->disk()->check_unchanged());
  outcome.run.patches_modules = machine_->patches_modules();
  TRY_ASSIGN(outcome.run.memory_digest, machine_->memory_digest());
  bool log_ended = false;
  bool stuck = false;
  for (uint32_t i = 0; i < machine_->vcpus(); ++i) {
    const ReplayJournal& each = journal(VcpuId(i));
    outcome.events += each.events();
    stuck |= each.stuck();
    log_ended |= each.log_ended();
    outcome.run.register_digests.push_back(machine_->vcpu(VcpuId(i)).final_digest());
    outcome.run.vcpus.push_back(machine_->vcpu(VcpuId(i)).statistics());
  }
  // In a prefix, the transition that a vCPU waits for may be in a part of another log that was not written
  // any more.
  if (!recording_.final().has_value() && (log_ended || !stuck)) {
    outcome.run.stop.reason = vmm::StopReason::kLogEnded;
    outcome.run.tickets = order_->tickets_counted();
    return outcome;
  }
  if (stuck)
    return fail(
        ErrorCode::kDivergence,
        "the replay differs from the recording: every vCPU waits for a page transition that no vCPU makes");
  if (log_ended) return fail(ErrorCode::kDivergence, "the replay went beyond the end of a log");
  const auto& final = *recording_.final();
  outcome.run.stop = {static_cast<vmm::StopReason>(final.reason()), final.guest_status(), final.message()};
  outcome.run.tickets = final.tickets();
  TRY(compare_end(final, recorded_console_, outcome.run, *order_));
  outcome.complete = true;
  return outcome;
}

}  // namespace reprise::replay
