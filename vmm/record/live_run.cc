#include "vmm/record/live_run.h"

#include "log/recording_writer.h"
#include "vmm/record/console_input.h"
#include "vmm/record/record_journal.h"
#include "vmm/record/supervisor.h"
#include "vmm/record/world.h"

namespace reprise::vmm {
namespace {

// Reads the whole disk image, for its hash. Errors: kHost.
Status describe_disk(const DiskImage& disk, log::pb::Manifest& manifest) {
  TRY_ASSIGN(const std::string hash, disk.hash());
  manifest.mutable_disk()->set_original_path(std::filesystem::absolute(disk.path()).string());
  manifest.mutable_disk()->set_size(disk.bytes());
  manifest.mutable_disk()->set_xxh3_128(hash);
  return {};
}

// A recording of this machine. Errors: as describe_disk() and RecordingWriter::create().
Result<std::unique_ptr<log::RecordingWriter>> start_writing(const LiveOptions& options,
                                                            const Machine& machine,
                                                            std::function<void(const Error&)> on_error) {
  log::RecordingWriter::Options writing;
  writing.on_error = std::move(on_error);
  if (!options.files.initrd.empty()) writing.initrd = options.files.initrd;
  log::pb::Manifest manifest = options.description;
  if (machine.disk() != nullptr) TRY(describe_disk(*machine.disk(), manifest));
  return log::RecordingWriter::create(*options.folder, std::move(manifest), options.files.image, writing);
}

Result<Outcome> summarise(const Machine& machine, const World& world, const ept::Ownership& ownership) {
  Outcome outcome;
  outcome.wall_ns = world.elapsed_ns();
  outcome.stop = world.stop().value_or(MachineStop{});
  TRY_ASSIGN(outcome.memory_digest, machine.memory_digest());
  outcome.tickets = ownership.tickets_taken();
  outcome.patches_modules = machine.changes_modules();
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

std::vector<std::unique_ptr<ept::Mailbox>> make_mailboxes(Machine& machine) {
  std::vector<std::unique_ptr<ept::Mailbox>> mailboxes;
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu)
    mailboxes.push_back(std::make_unique<ept::Mailbox>(machine.positioner(vcpu)));
  return mailboxes;
}

ept::PolicyOptions policy_of(const LiveOptions& options) {
  ept::PolicyOptions policy = options.policy;
  if (is_linux(options.description)) policy.patience_ns = 0;
  return policy;
}

}  // namespace

Result<Outcome> run_live(const Kvm& kvm, const LiveOptions& options) {
  std::unique_ptr<log::RecordingWriter> writer;  // outlives the machine, which writes to it
  TRY_ASSIGN(MachineOptions made, to_machine_options(options.description, options.files));
  made.views = options.views;
  made.free_run = options.free_run;
  TRY_ASSIGN(auto machine, Machine::create(kvm, made, [&](uint8_t byte) {
               if (writer != nullptr) writer->console().append(byte);
               if (options.console) options.console(byte);
             }));
  World* told = nullptr;  // whom the writer tells about a full disk; set before anything is appended
  if (options.folder.has_value()) {
    TRY_ASSIGN(writer, start_writing(options, *machine, [&](const Error& error) {
                 if (told != nullptr) told->request_stop({StopReason::kInterrupted, 0, error.message});
               }));
  }
  const auto mailboxes = make_mailboxes(*machine);
  World world(mailboxes, options.pace);
  told = &world;
  ept::Ownership ownership(machine->ownership_pages());
  std::vector<std::unique_ptr<Journal>> journals;
  for (uint32_t i = 0; i < machine->vcpus(); ++i)
    journals.push_back(std::make_unique<RecordJournal>(
        VcpuId(i), world, ownership, mailboxes, machine->view(VcpuId(i)), policy_of(options),
        writer ? &writer->vcpu(VcpuId(i)) : nullptr, options.description.digest_every()));
  TRY(machine->assemble(journals));
  Status ran;
  {
    const ConsoleInput input(world, options.console_input, options.console_escape);
    const Supervisor supervisor(*machine, options.interrupt,
                                {.stopping = [&] { return world.stop().has_value(); },
                                 .interrupt =
                                     [&] {
                                       world.request_stop({StopReason::kInterrupted, 0, "interrupted"});
                                     },
                                 .look =
                                     [&] {
                                       if (options.progress)
                                         options.progress({world.elapsed_ns(), ownership.tickets_taken(), 0,
                                                           writer ? writer->bytes_written() : 0});
                                     }});
    ran = machine->run([&](const Error& error) {
      world.request_stop({StopReason::kGuestError, 0, error.message});
    });
  }
  // A vCPU that was interrupted where no place has a name: what was recorded before that is a prefix.
  const bool is_cut = !ran && ran.error().code == ErrorCode::kGuest &&
                      world.stop().value_or(MachineStop{}).reason == StopReason::kInterrupted;
  if (!is_cut) TRY(ran);
  if (machine->disk() != nullptr) TRY(machine->disk()->check_unchanged());
  if (options.memory_file.has_value()) TRY(machine->save_memory(*options.memory_file));
  TRY_ASSIGN(Outcome outcome, summarise(*machine, world, ownership));
  for (const auto& journal : journals) outcome.crew.push_back(static_cast<RecordJournal&>(*journal).times());
  if (writer != nullptr) {
    if (const auto error = writer->error()) return tl::unexpected(*error);
    if (!is_cut) TRY(writer->finish(make_final(outcome)));
    outcome.log_bytes = writer->bytes_written();
  }
  if (is_cut) outcome.stop.message = ran.error().message;
  return outcome;
}

}  // namespace reprise::vmm
