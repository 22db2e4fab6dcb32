#include "replay/replay_machine.h"

#include <algorithm>

#include "log/packed_disk.h"
#include "vmm/device/disk/disk_image.h"
#include "vmm/guest/cpu_model.h"
#include "vmm/host/host_profile.h"
#include "vmm/host/processor.h"
#include "vmm/record/machine_description.h"

namespace reprise::replay {
namespace {

// Says where the disk images are now, if the guest has any: where the user says, in the recording, or where
// they were. Errors: kNotFound, kUsage.
Status locate_disks(const log::Recording& recording, std::span<const vmm::DiskOptions> moved_to,
                    std::vector<vmm::DiskOptions>& disks) {
  if (moved_to.size() > disks.size())
    return disks.empty()
               ? fail(ErrorCode::kUsage, "the recorded guest had no disk: --disk makes no sense here")
               : fail(ErrorCode::kUsage, "the recorded guest had {} disks, --disk names {}", disks.size(),
                      moved_to.size());
  for (size_t i = 0; i < disks.size(); ++i) {
    const auto packed = log::packed_disk_path(recording.folder(), i);
    std::error_code error;
    if (i < moved_to.size()) {
      disks[i].path = moved_to[i].path;
      disks[i].format = moved_to[i].format;
    } else if (std::filesystem::exists(packed, error)) {
      disks[i].path = packed;
      disks[i].format = vmm::kPackedFormat;
    }
    if (std::filesystem::exists(disks[i].path, error)) continue;
    const auto& recorded = recording.manifest().disks(static_cast<int>(i));
    return fail(
        ErrorCode::kNotFound,
        "the recorded guest's disk image {} is not there: name with --disk where it is now ({} bytes, "
        "hash {})",
        disks[i].path.string(), recorded.size(), recorded.xxh3_128());
  }
  return {};
}

// Errors: kDamaged; kHost.
Status check_disk(const log::pb::Disk& recorded, const vmm::DiskImage& disk) {
  if (disk.bytes() != recorded.size())
    return fail(
        ErrorCode::kDamaged,
        "{} is not the disk image that was recorded: it has {} bytes, recorded were {}; name the right "
        "one with --disk",
        disk.path().string(), disk.bytes(), recorded.size());
  TRY_ASSIGN(const std::string found, disk.hash());
  if (found == recorded.xxh3_128()) return {};
  return fail(ErrorCode::kDamaged,
              "{} is not the disk image that was recorded: its hash is {}, recorded was {}; name the right "
              "one with --disk",
              disk.path().string(), found, recorded.xxh3_128());
}

Result<vmm::MachineOptions> machine_of(const log::Recording& recording, const vmm::Kvm& kvm,
                                       vmm::ViewKind views, std::span<const vmm::DiskOptions> moved_to) {
  TRY(vmm::check_recorded(recording));
  const auto& manifest = recording.manifest();
  TRY_ASSIGN(auto machine,
             vmm::to_machine_options(manifest, {.image = recording.image(), .initrd = recording.initrd()}));
  std::vector<vmm::DiskOptions> none;
  TRY(locate_disks(recording, moved_to, machine.linux_guest.has_value() ? machine.linux_guest->disks : none));
  machine.views = views;
  if (machine.clock == vmm::ClockKind::kBranches && vmm::traces_user_mode() == false)
    return fail(
        ErrorCode::kHost,
        "the recording counts conditional branches ({}), which this host's KVM does not let a processor "
        "count: replay it on a host with VT-x or AMD-V and a performance counter",
        manifest.branch_event());
  if (machine.mode != vmm::ExecutionMode::kSerial)
    TRY(vmm::check_stops_alike(manifest.host(), vmm::describe_host(kvm, views)));
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

// The same machine in the end: memory, registers, and every ticket exactly once.
Status compare_end(const log::pb::Final& final, const vmm::Outcome& run, const PageOrder& order) {
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

}  // namespace

Result<std::unique_ptr<ReplayMachine>> ReplayMachine::create(const vmm::Kvm& kvm,
                                                             const log::Recording& recording,
                                                             TotalOrder* total, vmm::ViewKind views,
                                                             std::span<const vmm::DiskOptions> moved_disks,
                                                             vmm::ConsoleSink console) {
  TRY_ASSIGN(auto options, machine_of(recording, kvm, views, moved_disks));
  if (total != nullptr && options.clock == vmm::ClockKind::kBranches)
    return fail(ErrorCode::kUsage,
                "a recording with clock branches can be replayed, but not gone through by a debugger");
  options.note_writes = total != nullptr;
  TRY_ASSIGN(ConsoleCheck check, ConsoleCheck::create(recording));
  std::unique_ptr<ReplayMachine> replay(new ReplayMachine(recording, std::move(check)));
  const auto written = [to = replay.get(), compare = total == nullptr,
                        show = std::move(console)](uint8_t byte) {
    if (compare) to->console_check_.write(byte);
    if (show) show(byte);
  };
  TRY_ASSIGN(replay->machine_, vmm::Machine::create(kvm, options, written));
  vmm::Machine& machine = *replay->machine_;
  for (size_t i = 0; i < machine.disks().size(); ++i)
    TRY(check_disk(recording.manifest().disks(static_cast<int>(i)), *machine.disks()[i]));
  // Where vCPUs run one at a time, nobody can wait for anybody.
  replay->order_ = total == nullptr ? std::make_unique<PageOrder>(machine.ownership_pages(), machine.vcpus(),
                                                                  &machine.gate())
                                    : std::make_unique<PageOrder>(machine.ownership_pages(), 1);
  for (uint32_t i = 0; i < machine.vcpus(); ++i) {
    TRY_ASSIGN(auto reader, recording.open_log(VcpuId(i)));
    replay->journals_.push_back(std::make_unique<ReplayJournal>(VcpuId(i), std::move(reader), *replay->order_,
                                                                total, machine.view(VcpuId(i)),
                                                                recording.manifest().digest_every()));
  }
  return replay;
}

Result<uint64_t> ReplayMachine::pack() {
  uint64_t bytes = 0;
  for (size_t i = 0; i < machine_->disks().size(); ++i) {
    vmm::DiskImage& disk = *machine_->disks()[i];
    const auto runs = disk.blocks_read();
    TRY_ASSIGN(const uint64_t written,
               log::write_packed_disk(log::packed_disk_path(recording_.folder(), i),
                                      {.disk_bytes = disk.bytes(),
                                       .hash = recording_.manifest().disks(static_cast<int>(i)).xxh3_128(),
                                       .runs = runs,
                                       .read = [&](uint64_t offset, std::span<uint8_t> to) {
                                         return disk.read_image(offset, to);
                                       }}));
    bytes += written;
  }
  return bytes;
}

Result<ReplayOutcome> ReplayMachine::finish() {
  ReplayOutcome outcome;
  for (const auto& disk : machine_->disks()) TRY(disk->check_unchanged());
  outcome.run.patches_modules = machine_->changes_modules();
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
    TRY(console_check_.finish(false));
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
  TRY(console_check_.finish(true));
  TRY(compare_end(final, outcome.run, *order_));
  outcome.complete = true;
  return outcome;
}

}  // namespace reprise::replay
