#include "vmm/live_run.h"

#include <thread>

#include "log/recording_writer.h"
#include "vmm/cpu_model.h"
#include "vmm/record_journal.h"
#include "vmm/world.h"

namespace reprise::vmm {
namespace {

// After the machine was told to stop, a vCPU has this long to pass a safepoint. Hundreds of scheduler slices.
constexpr uint64_t kGraceNs = 10'000'000'000;
constexpr uint64_t kPollNs = 50'000'000;

log::pb::Manifest make_manifest(const LiveOptions& options) {
  log::pb::Manifest manifest;
  manifest.set_tool_version(REPRISE_VERSION);
  manifest.set_vcpus(options.machine.vcpus);
  manifest.set_memory_bytes(options.machine.memory_bytes);
  manifest.mutable_image()->set_original_path(options.image_path);
  manifest.set_command_line(options.machine.command_line);
  manifest.set_cpu_model(std::string(kCpuModelName));
  for (const auto& entry : options.machine.cpuid) {
    auto* to = manifest.add_cpuid();
    to->set_function(entry.function);
    to->set_index(entry.index);
    to->set_flags(entry.flags);
    to->set_eax(entry.eax);
    to->set_ebx(entry.ebx);
    to->set_ecx(entry.ecx);
    to->set_edx(entry.edx);
  }
  *manifest.mutable_host() = options.host;
  manifest.set_digest_every(options.digest_every);
  manifest.set_mode(options.machine.serial ? "serial" : "crew");
  manifest.mutable_settings()->set_hold_us(options.policy.hold_ns / 1000);
  if (options.policy.chaos.has_value()) manifest.mutable_settings()->set_chaos_seed(*options.policy.chaos);
  manifest.set_start_unix_seconds(std::chrono::duration_cast<std::chrono::seconds>(
                                      std::chrono::system_clock::now().time_since_epoch())
                                      .count());
  return manifest;
}

// Watches a running machine from outside: the user's interrupt, and vCPUs that do not come to a safepoint.
class Supervisor {
 public:
  Supervisor(World& world, Machine& machine, const std::atomic<bool>* interrupt)
      : world_(world), machine_(machine), interrupt_(interrupt), thread_([this] { watch(); }) {}
  ~Supervisor() {
    done_.store(true, std::memory_order_release);
    world_.request_stop({StopReason::kInterrupted, 0, {}});  // wakes the watcher; the machine has stopped already
    thread_.join();
  }

 private:
  void watch() {
    while (!world_.wait_for_stop(ept::monotonic_ns() + kPollNs)) {
      if (interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed))
        world_.request_stop({StopReason::kInterrupted, 0, "interrupted"});
    }
    const uint64_t patience_ends = ept::monotonic_ns() + kGraceNs;
    while (!done_.load(std::memory_order_acquire)) {
      if (ept::monotonic_ns() > patience_ends) machine_.abandon();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  World& world_;
  Machine& machine_;
  const std::atomic<bool>* interrupt_;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

Outcome summarise(const Machine& machine, const World& world, const ept::Ownership& ownership, std::string console) {
  Outcome outcome;
  outcome.wall_ns = world.now_ns();
  outcome.stop = world.stop().value_or(MachineStop{});
  outcome.console = std::move(console);
  outcome.memory_digest = machine.memory_digest();
  outcome.tickets = ownership.tickets_taken();
  for (uint32_t i = 0; i < machine.vcpus(); ++i) {
    outcome.register_digests.push_back(machine.vcpu(VcpuId(i)).final_digest());
    outcome.vcpus.push_back(machine.vcpu(VcpuId(i)).statistics());
  }
  return outcome;
}

log::pb::Final make_final(const Outcome& outcome) {
  log::pb::Final final;
  final.set_reason(static_cast<log::pb::Reason>(outcome.stop.reason));
  final.set_guest_status(outcome.stop.status);
  final.set_ram_digest(outcome.memory_digest);
  for (const uint64_t digest : outcome.register_digests) final.add_register_digests(digest);
  final.set_tickets(outcome.tickets);
  final.set_wall_nanoseconds(outcome.wall_ns);
  final.set_message(outcome.stop.message);
  return final;
}

}  // namespace

Result<Outcome> run_live(const Kvm& kvm, const LiveOptions& options) {
  std::string console;
  TRY_ASSIGN(auto machine, Machine::create(kvm, options.machine, [&](uint8_t byte) {
               console.push_back(static_cast<char>(byte));
               if (options.console) options.console(byte);
             }));
  World* told = nullptr;  // whom the writer tells about a full disk; set before anything is appended
  std::unique_ptr<log::RecordingWriter> writer;
  if (options.folder.has_value()) {
    log::RecordingWriter::Options writing;
    writing.on_error = [&](const Error& error) {
      if (told != nullptr) told->request_stop({StopReason::kInterrupted, 0, error.message});
    };
    TRY_ASSIGN(writer, log::RecordingWriter::create(*options.folder, make_manifest(options), options.machine.image, writing));
  }
  std::vector<std::unique_ptr<ept::Mailbox>> mailboxes;
  for (uint32_t i = 0; i < machine->vcpus(); ++i)
    mailboxes.push_back(std::make_unique<ept::Mailbox>(machine->clock(VcpuId(i))));
  World world(mailboxes);
  told = &world;
  ept::Ownership ownership(machine->ownership_pages());
  std::vector<std::unique_ptr<Journal>> journals;
  for (uint32_t i = 0; i < machine->vcpus(); ++i)
    journals.push_back(std::make_unique<RecordJournal>(VcpuId(i), world, ownership, mailboxes, machine->view(VcpuId(i)),
                                                       options.policy, writer ? &writer->vcpu(VcpuId(i)) : nullptr,
                                                       options.digest_every));
  Status ran;
  {
    const Supervisor supervisor(world, *machine, options.interrupt);
    ran = machine->run(journals, [&](const Error& error) {
      world.request_stop({StopReason::kGuestError, 0, error.message});
    });
  }
  TRY(ran);
  Outcome outcome = summarise(*machine, world, ownership, std::move(console));
  for (const auto& journal : journals) outcome.crew.push_back(static_cast<RecordJournal&>(*journal).times());
  if (writer != nullptr) {
    if (const auto error = writer->error()) return tl::unexpected(*error);
    TRY(writer->finish(make_final(outcome), outcome.console));
    outcome.log_bytes = writer->bytes_written();
  }
  return outcome;
}

}  // namespace reprise::vmm
