#include "vmm/record/record_session.h"

#include "vmm/device/disk/kept_writes.h"
#include "vmm/record/record_journal.h"

namespace reprise::vmm {
namespace {

// Reads the whole disk image, for its hash. Errors: kHost.
Status describe_disk(const DiskImage& disk, log::pb::Disk& described) {
  TRY_ASSIGN(const std::string hash, disk.hash());
  described.set_original_path(std::filesystem::absolute(disk.path()).string());
  described.set_size(disk.bytes());
  described.set_xxh3_128(hash);
  return {};
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
  for (const auto& split : outcome.times) *final.add_times() = split;
  return final;
}

log::pb::TimeSplit split_of(const RecordJournal& journal, const VcpuStatistics& statistics, size_t vcpus) {
  const ept::CrewTimes times = journal.times();
  log::pb::TimeSplit split;
  split.set_guest(statistics.guest_ns);
  split.set_first_touches(times.touch_ns);
  split.set_pages(times.wait_ns);
  for (size_t holder = 0; holder < vcpus; ++holder) split.add_pages_of(times.wait_for_ns[holder]);
  split.set_turn(times.turn_ns);
  split.set_grants(times.grant_ns);
  split.set_revokes(times.revoke_ns);
  split.set_decode(statistics.decode_ns);
  split.set_log(journal.log_ns());
  split.set_idle(journal.idle_ns());
  return split;
}

ept::PolicyOptions policy_of(const RecordOptions& options) {
  ept::PolicyOptions policy = options.policy;
  if (is_linux(options.description)) policy.patience_ns = 0;
  return policy;
}

}  // namespace

Result<std::unique_ptr<RecordSession>> RecordSession::create(const Kvm& kvm, RecordOptions options) {
  std::unique_ptr<RecordSession> session(new RecordSession(std::move(options)));
  TRY(session->make_machine(kvm));
  if (session->options_.folder.has_value()) TRY(session->start_writing());
  session->make_journals();
  TRY(session->machine_->assemble(session->journals_));
  World& world = *session->world_;
  session->run_on(*session->machine_, {.failed =
                                           [&world](const Error& error) {
                                             world.request_stop({StopReason::kGuestError, 0, error.message});
                                           },
                                       .stopping = [&world] { return world.stop().has_value(); }});
  session->input_ = std::make_unique<ConsoleInput>(world, session->options_.console_input,
                                                   session->options_.console_escape);
  return session;
}

RecordSession::~RecordSession() {
  finish();
}

Status RecordSession::make_machine(const Kvm& kvm) {
  TRY_ASSIGN(MachineOptions made, to_machine_options(options_.description, options_.files));
  made.views = options_.views;
  made.free_run = options_.free_run;
  TRY_ASSIGN(machine_, Machine::create(kvm, made, [this](uint8_t byte) {
               if (writer_ != nullptr) writer_->console().append(byte);
               if (options_.console) options_.console(byte);
             }));
  return {};
}

// Errors: as describe_disk() and RecordingWriter::create().
Status RecordSession::start_writing() {
  log::RecordingWriter::Options writing;
  // Nothing is written before the world is there.
  writing.on_error = [this](const Error& error) {
    if (world_ != nullptr) world_->request_stop({StopReason::kInterrupted, 0, error.message});
  };
  if (!options_.files.initrd.empty()) writing.initrd = options_.files.initrd;
  log::pb::Manifest manifest = options_.description;
  manifest.set_clock(std::string(name(machine_->clock())));
  for (size_t i = 0; i < machine_->disks().size(); ++i)
    TRY(describe_disk(*machine_->disks()[i], *manifest.mutable_disks(static_cast<int>(i))));
  if (const auto& branches = machine_->branch_clock()) manifest.set_branch_event(branches->event.name);
  TRY_ASSIGN(writer_, log::RecordingWriter::create(*options_.folder, std::move(manifest),
                                                   options_.files.image, writing));
  return {};
}

void RecordSession::make_journals() {
  for (VcpuId vcpu; vcpu.raw < machine_->vcpus(); ++vcpu)
    mailboxes_.push_back(std::make_unique<ept::Mailbox>(machine_->positioner(vcpu), &machine_->gate()));
  world_ = std::make_unique<World>(mailboxes_, options_.pace);
  world_->pause();
  ownership_ = std::make_unique<ept::Ownership>(machine_->ownership_pages());
  if (options_.description.mode() == name(ExecutionMode::kDomains))
    domains_ = std::make_unique<ept::Domains>(machine_->vcpus());
  for (VcpuId vcpu; vcpu.raw < machine_->vcpus(); ++vcpu)
    journals_.push_back(std::make_unique<RecordJournal>(
        vcpu, *world_, *ownership_, mailboxes_, machine_->view(vcpu), policy_of(options_), domains_.get(),
        writer_ ? &writer_->vcpu(vcpu) : nullptr, options_.description.digest_every()));
}

void RecordSession::let_time_pass(bool passes) {
  passes ? world_->resume() : world_->pause();
}

bool RecordSession::tell_to_stop() {
  return world_->request_stop({StopReason::kInterrupted, 0, "interrupted"});
}

Progress RecordSession::progress() const {
  return {.wall_ns = world_->elapsed_ns(),
          .transitions = ownership_->tickets_taken(),
          .log_bytes = writer_ != nullptr ? writer_->bytes_written() : 0,
          .stops = stops(),
          .virtual_ns = world_->now_ns()};
}

Result<Outcome> RecordSession::summarise() const {
  Outcome outcome;
  outcome.wall_ns = world_->elapsed_ns();
  outcome.stop = world_->stop().value_or(MachineStop{});
  TRY_ASSIGN(outcome.memory_digest, machine_->memory_digest());
  outcome.tickets = ownership_->tickets_taken();
  outcome.patches_modules = machine_->changes_modules();
  outcome.clock = machine_->clock();
  outcome.why_no_kernel_clock = machine_->why_no_kernel_clock();
  outcome.vcpus = statistics();
  for (VcpuId vcpu; vcpu.raw < machine_->vcpus(); ++vcpu)
    outcome.register_digests.push_back(machine_->vcpu(vcpu).final_digest());
  for (VcpuId vcpu; vcpu.raw < machine_->vcpus(); ++vcpu)
    outcome.flat_loops.push_back(machine_->positioner(vcpu).flat_loop());
  for (size_t vcpu = 0; vcpu < journals_.size(); ++vcpu) {
    const auto& journal = static_cast<const RecordJournal&>(*journals_[vcpu]);
    outcome.crew.push_back(journal.times());
    outcome.times.push_back(split_of(journal, outcome.vcpus[vcpu], journals_.size()));
  }
  return outcome;
}

Result<Outcome> RecordSession::wait() {
  const Status ran = join();
  input_.reset();
  // A vCPU that was interrupted where no place has a name: what was recorded before that is a prefix.
  const bool is_cut = !ran && ran.error().code == ErrorCode::kGuest &&
                      world_->stop().value_or(MachineStop{}).reason == StopReason::kInterrupted;
  if (!is_cut) TRY(ran);
  for (const auto& disk : machine_->disks()) TRY(disk->check_unchanged());
  if (options_.memory_file.has_value()) TRY(machine_->save_memory(*options_.memory_file));
  TRY_ASSIGN(Outcome outcome, summarise());
  if (writer_ != nullptr) {
    if (const auto error = writer_->error()) return tl::unexpected(*error);
    if (!is_cut) TRY(writer_->finish(make_final(outcome)));
    outcome.log_bytes = writer_->bytes_written();
  }
  for (size_t i = 0; i < options_.kept_writes.size(); ++i)
    TRY(keep_writes(*machine_->disks()[i], options_.kept_writes[i]));
  if (is_cut) outcome.stop.message = ran.error().message;
  return outcome;
}

}  // namespace reprise::vmm
