// The journal that takes its answers from the world, and writes them down.
#pragma once

#include <memory>
#include <span>

#include "base/time.h"
#include "ept/crew.h"
#include "log/vcpu_log_writer.h"
#include "vmm/journal.h"
#include "vmm/record/world.h"

namespace reprise::vmm {

// Threads: confined to the vCPU's thread.
class RecordJournal final : public Journal, private ept::OrderLog {
 public:
  // `domains`: null where the vCPUs never merge and split. `log`: where the answers go; null for a run that
  // nobody records. All references outlive the journal. `digest_every`: k, every k-th stop's digest is
  // logged.
  RecordJournal(VcpuId vcpu, World& world, ept::Ownership& ownership,
                std::span<const std::unique_ptr<ept::Mailbox>> mailboxes, ept::View& view,
                const ept::PolicyOptions& policy, ept::Domains* domains, log::VcpuLogWriter* log,
                uint64_t digest_every);

  Result<std::optional<AsyncEvent>> next_async() override;
  Status wait() override;
  Ticks next_stop() override;
  void yield() override { yielding_ = true; }
  [[nodiscard]] bool kicked() const override { return mailbox_.kicked(); }
  [[nodiscard]] bool wants_registers() const override { return crew_.is_looked_at(); }
  void look_at(Gva rip, uint64_t registers) override { yielding_ |= crew_.look_at(rip, registers); }
  void entering(uint64_t now_ns) override { enter(ept::Activity::kExecuting, now_ns); }
  void exited(uint64_t now_ns, bool faulted) override { enter(ept::Activity::kWorking, now_ns, faulted); }
  [[nodiscard]] bool may_stop_in_user_mode() const override { return mailbox_.kicked(); }
  Result<std::optional<UserStop>> next_user_stop() override { return std::optional<UserStop>(); }
  Status stopped_in_user_mode(const UserStop& stop) override;
  Result<Acquired> acquire(std::span<const PageRight> needed, bool again) override;
  Status stopped(uint64_t registers) override;
  Status compared_machine(uint64_t digest) override;
  Status ended(uint64_t registers) override;
  void perform(const Effect& effect) override;
  void stop_machine(const MachineStop& stop) override { world_.request_stop(stop); }
  Result<uint64_t> value(log::Source source) override;

  [[nodiscard]] ept::CrewTimes times() const { return crew_.times(); }
  [[nodiscard]] uint64_t log_ns() const { return log_ns_; }    // handing events to the log
  [[nodiscard]] uint64_t idle_ns() const { return idle_ns_; }  // waiting for something to happen

 private:
  void lost(const log::Loss& loss) override {
    note_async(loss.ticket.raw);
    append(loss);
  }
  void gained(log::Gain gain) override {
    note_async(gain.ticket.raw);
    append(std::move(gain));
  }
  void enter(ept::Activity activity, uint64_t now_ns, bool faulted = false) {
    if (domains_ != nullptr) domains_->enter(vcpu_, activity, now_ns, faulted);
  }
  template <typename What>
  void append(What&& what) {
    if (log_ == nullptr) return;
    const uint64_t start = monotonic_ns();
    log_->append(log::Event{at(), std::forward<What>(what)});
    log_ns_ += monotonic_ns() - start;
  }

  VcpuId vcpu_;
  World& world_;
  ept::Mailbox& mailbox_;
  ept::CrewMember crew_;
  ept::Domains* domains_;
  const PageNumber turn_;
  log::VcpuLogWriter* log_;
  uint64_t digest_every_;
  uint64_t log_ns_ = 0;
  uint64_t idle_ns_ = 0;
  bool yielding_ = false;
  std::optional<Position> unsettled_;  // where chaos last had its turn
};

}  // namespace reprise::vmm
