#include "replay/replay_run.h"

#include <algorithm>

#include "replay/page_order.h"
#include "replay/replay_journal.h"
#include "vmm/cpu_model.h"
#include "vmm/host_profile.h"
#include "vmm/supervisor.h"

namespace reprise::replay {
namespace {

// Where the disk image is, if the guest has one. Errors: kNotFound, kUsage.
Result<std::optional<std::filesystem::path>> disk_of(const log::pb::Manifest& manifest, const ReplayOptions& options) {
  if (!manifest.has_disk()) {
    if (options.disk.has_value()) return fail(ErrorCode::kUsage, "the recorded guest had no disk: --disk makes no sense here");
    return std::optional<std::filesystem::path>();
  }
  const std::filesystem::path path = options.disk.value_or(manifest.disk().original_path());
  std::error_code error;
  if (std::filesystem::exists(path, error)) return std::optional(path);
  return fail(ErrorCode::kNotFound, "the recorded guest's disk image {} is not there: name with --disk where it is now ({} bytes, hash {})",
              path.string(), manifest.disk().size(), manifest.disk().xxh3_128());
}

// Errors: kDamaged; kHost.
Status check_disk(const log::pb::Image& recorded, const vmm::DiskImage& disk) {
  TRY_ASSIGN(const std::string found, disk.hash());
  if (found == recorded.xxh3_128()) return {};
  return fail(ErrorCode::kDamaged, "{} is not the disk image that was recorded: its hash is {}, recorded was {}; name the right one with --disk",
              disk.path().string(), found, recorded.xxh3_128());
}

Status add_virtio(const log::pb::Manifest& manifest, vmm::MachineOptions::Linux& guest) {
  guest.virtio_random = false;
  for (const auto& name : manifest.virtio()) {
    if (name == vmm::kVirtioRandomName) guest.virtio_random = true;
    else if (name == vmm::kVirtioConsoleName) guest.virtio_console = true;
    else return fail(ErrorCode::kDamaged, "the manifest says that the guest has a virtio device {}, which this program does not know", name);
  }
  return {};
}

Result<vmm::MachineOptions> machine_of(const log::Recording& recording, const vmm::Kvm& kvm, const ReplayOptions& options) {
  const auto& manifest = recording.manifest();
  vmm::MachineOptions machine;
  machine.vcpus = manifest.vcpus();
  machine.memory_bytes = manifest.memory_bytes();
  machine.image = recording.image();
  machine.command_line = manifest.command_line();
  machine.serial = manifest.mode() == "serial";
  machine.views = options.views;
  machine.start_unix_seconds = manifest.start_unix_seconds();
  if (manifest.boot() == "linux") {
    auto& guest = machine.linux_guest.emplace();
    if (manifest.has_initrd()) guest.initrd = recording.initrd();
    TRY(add_virtio(manifest, guest));
    TRY_ASSIGN(guest.disk, disk_of(manifest, options));
  } else if (!manifest.boot().empty()) {
    return fail(ErrorCode::kDamaged, "the manifest says that the guest boots by {}, which this program does not know", manifest.boot());
  }
  if (!machine.serial) TRY(vmm::check_stops_alike(manifest.host(), vmm::describe_host(kvm, options.views)));
  machine.cpuid = vmm::from_message(manifest.cpuid());
  TRY_ASSIGN(const auto host, kvm.supported_cpuid());
  TRY(vmm::check_cpu_model(machine.cpuid, host));
  return machine;
}

tl::unexpected<Error> end_differs(std::string_view what, uint64_t expected, uint64_t found) {
  return fail(ErrorCode::kDivergence,
              "the replay differs from the recording at its end: {}\n  recorded: {:#018x}\n  replayed: {:#018x}", what, expected,
              found);
}

// The same machine in the end: console, memory, registers, and every ticket exactly once.
Status compare_end(const log::pb::Final& final, const std::string& console, const vmm::Outcome& run, const PageOrder& order) {
  if (console != run.console) {
    const auto [recorded, replayed] = std::mismatch(console.begin(), console.end(), run.console.begin(), run.console.end());
    return fail(ErrorCode::kDivergence,
                "the replay differs from the recording at its end: console output differs from byte {} on ({} bytes recorded, {} "
                "replayed)",
                recorded - console.begin(), console.size(), run.console.size());
  }
  if (final.ram_digest() != run.memory_digest) return end_differs("memory, devices or disk", final.ram_digest(), run.memory_digest);
  for (int i = 0; i < final.register_digests_size() && i < static_cast<int>(run.register_digests.size()); ++i)
    if (final.register_digests(i) != run.register_digests[static_cast<size_t>(i)])
      return end_differs(fmt::format("registers of vCPU {}", i), final.register_digests(i),
                         run.register_digests[static_cast<size_t>(i)]);
  uint64_t expected = 0;
  for (uint64_t ticket = 1; ticket <= final.tickets(); ++ticket) expected += PageOrder::ticket_hash(Ticket(ticket));
  if (expected != order.ticket_sum()) return end_differs("the set of tickets", expected, order.ticket_sum());
  return {};
}

}  // namespace

Result<ReplayOutcome> replay(const vmm::Kvm& kvm, const log::Recording& recording, const ReplayOptions& options) {
  TRY_ASSIGN(const auto machine_options, machine_of(recording, kvm, options));
  // Read before anything runs: what is damaged is refused first.
  std::string console;
  if (recording.final().has_value()) {
    TRY_ASSIGN(console, recording.console());
  }
  ReplayOutcome outcome;
  TRY_ASSIGN(auto machine, vmm::Machine::create(kvm, machine_options, [&](uint8_t byte) {
               outcome.run.console.push_back(static_cast<char>(byte));
               if (options.console) options.console(byte);
             }));
  if (machine->disk() != nullptr) TRY(check_disk(recording.manifest().disk(), *machine->disk()));
  PageOrder order(machine->ownership_pages(), machine->vcpus());
  std::vector<std::unique_ptr<vmm::Journal>> journals;
  for (uint32_t i = 0; i < machine->vcpus(); ++i) {
    TRY_ASSIGN(auto reader, recording.open_log(VcpuId(i)));
    journals.push_back(std::make_unique<ReplayJournal>(VcpuId(i), std::move(reader), order, machine->view(VcpuId(i)),
                                                       recording.manifest().digest_every()));
  }
  const uint64_t start = ept::monotonic_ns();
  const uint64_t tickets = recording.final().has_value() ? recording.final()->tickets() : 0;
  bool interrupted = false;
  {
    const auto abort = [&] {
      order.abort();
      for (uint32_t i = 0; i < machine->vcpus(); ++i) machine->clock(VcpuId(i)).kick();
    };
    const vmm::Supervisor supervisor(*machine, options.interrupt,
                                     {.stopping = [&] { return order.aborted(); },
                                      .interrupt = abort,
                                      .look = [&] {
                                        if (options.progress)
                                          options.progress({ept::monotonic_ns() - start, order.tickets_counted(), tickets, 0});
                                      }});
    TRY(machine->run(journals, [&](const Error&) { abort(); }));
    interrupted = supervisor.interrupted();
  }
  if (interrupted) return fail(ErrorCode::kUsage, "interrupted before the end of the recording");
  outcome.run.wall_ns = ept::monotonic_ns() - start;
  if (machine->disk() != nullptr) TRY(machine->disk()->check_unchanged());
  TRY_ASSIGN(outcome.run.memory_digest, machine->memory_digest());
  if (options.memory_file.has_value()) TRY(machine->save_memory(*options.memory_file));
  bool log_ended = false;
  bool stuck = false;
  for (uint32_t i = 0; i < machine->vcpus(); ++i) {
    const auto& journal = static_cast<const ReplayJournal&>(*journals[i]);
    outcome.events += journal.events();
    stuck |= journal.stuck();
    log_ended |= journal.log_ended();
    outcome.run.register_digests.push_back(machine->vcpu(VcpuId(i)).final_digest());
    outcome.run.vcpus.push_back(machine->vcpu(VcpuId(i)).statistics());
  }
  // In a prefix, the transition that a vCPU waits for may be in a part of another log that was not written any more.
  if (!recording.final().has_value() && (log_ended || !stuck)) {
    outcome.run.stop.reason = vmm::StopReason::kLogEnded;
    outcome.run.tickets = order.tickets_counted();
    return outcome;
  }
  if (stuck)
    return fail(ErrorCode::kDivergence,
                "the replay differs from the recording: every vCPU waits for a page transition that no vCPU makes");
  if (log_ended) return fail(ErrorCode::kDivergence, "the replay went beyond the end of a log");
  const auto& final = *recording.final();
  outcome.run.stop = {static_cast<vmm::StopReason>(final.reason()), final.guest_status(), final.message()};
  outcome.run.tickets = final.tickets();
  TRY(compare_end(final, console, outcome.run, order));
  outcome.complete = true;
  return outcome;
}

}  // namespace reprise::replay
