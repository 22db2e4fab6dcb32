#include "replay/replay_session.h"

namespace reprise::replay {

Result<std::unique_ptr<ReplaySession>> ReplaySession::create(const vmm::Kvm& kvm,
                                                             const log::Recording& recording,
                                                             ReplayOptions options) {
  std::unique_ptr<ReplaySession> session(new ReplaySession(recording, std::move(options)));
  ReplaySession& self = *session;
  TRY_ASSIGN(self.replay_, ReplayMachine::create(kvm, recording, nullptr, self.options_.views,
                                                 self.options_.moved_disks, self.options_.console));
  TRY(self.replay_->machine().assemble(self.replay_->journals()));
  if (self.options_.packs)
    for (const auto& disk : self.replay_->machine().disks()) disk->remember_reads();
  self.run_on(self.replay_->machine(), {.failed = [&self](const Error&) { self.abort(); },
                                        .stopping = [&self] { return self.replay_->order().aborted(); }});
  return session;
}

ReplaySession::~ReplaySession() {
  finish();
}

void ReplaySession::abort() {
  replay_->order().abort();
  vmm::Machine& machine = replay_->machine();
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) machine.positioner(vcpu).kick();
}

// The guest's time is in the log: only what people wait for is counted here.
void ReplaySession::let_time_pass(bool passes) {
  passes ? running_.resume() : running_.pause();
}

bool ReplaySession::tell_to_stop() {
  if (replay_->order().aborted()) return false;
  interrupted_.store(true, std::memory_order_release);
  abort();
  return true;
}

vmm::Progress ReplaySession::progress() const {
  return {.wall_ns = running_.elapsed_ns(),
          .transitions = replay_->order().tickets_counted(),
          .of_transitions = recording_.final().has_value() ? recording_.final()->tickets() : 0,
          .stops = stops(),
          .virtual_ns = {}};
}

Result<ReplayOutcome> ReplaySession::wait() {
  const Status ran = join();
  if (interrupted_.load(std::memory_order_acquire)) {  // also where a vCPU had to be given up for it
    ReplayOutcome outcome;
    outcome.run.stop.reason = vmm::StopReason::kInterrupted;
    outcome.run.tickets = replay_->order().tickets_counted();
    return outcome;
  }
  TRY(ran);
  const uint64_t wall_ns = running_.elapsed_ns();
  if (options_.memory_file.has_value()) TRY(replay_->machine().save_memory(*options_.memory_file));
  TRY_ASSIGN(auto outcome, replay_->finish());
  outcome.run.wall_ns = wall_ns;
  if (options_.packs) {
    TRY_ASSIGN(outcome.packed_bytes, replay_->pack());
  }
  return outcome;
}

}  // namespace reprise::replay
