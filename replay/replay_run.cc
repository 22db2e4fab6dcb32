#include "replay/replay_run.h"

#include <algorithm>

#include "replay/page_order.h"
#include "replay/replay_journal.h"
#include "vmm/cpu_model.h"
#include "vmm/supervisor.h"

namespace reprise::replay {
namespace {

Result<vmm::MachineOptions> machine_of(const log::Recording& recording, const vmm::Kvm& kvm, const ReplayOptions& options) {
  const auto& manifest = recording.manifest();
  vmm::MachineOptions machine;
  machine.vcpus = manifest.vcpus();
  machine.memory_bytes = manifest.memory_bytes();
  machine.image = recording.image();
  machine.command_line = manifest.command_line();
  machine.serial = manifest.mode() == "serial";
  if (manifest.memory_digest_every() != 0 && !machine.serial)
    return fail(ErrorCode::kDamaged, "the manifest says that memory was compared at stops, which only mode serial can");
  machine.views = options.views;
  machine.start_unix_seconds = manifest.start_unix_seconds();
  machine.memory_digest_every = manifest.memory_digest_every();
  if (manifest.boot() == "linux") {
    auto& guest = machine.linux_guest.emplace();
    if (manifest.has_initrd()) guest.initrd = recording.initrd();
  } else if (!manifest.boot().empty()) {
    return fail(ErrorCode::kDamaged, "the manifest says that the guest boots by {}, which this program does not know", manifest.boot());
  }
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
  if (final.ram_digest() != run.memory_digest) return end_differs("memory", final.ram_digest(), run.memory_digest);
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
  outcome.run.patches_modules = machine->patches_modules();
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
