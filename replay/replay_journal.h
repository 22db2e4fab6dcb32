// The journal that takes its answers from the log, and reports where the guest asks for something else.
#pragma once

#include <deque>
#include <optional>
#include <span>

#include "base/state.h"
#include "log/vcpu_log_reader.h"
#include "replay/divergence.h"
#include "replay/page_order.h"
#include "replay/total_order.h"
#include "vmm/journal.h"

namespace reprise::replay {

// Where a journal is in its log.
struct ReplayJournalState {
  log::LogCursor cursor;
  Position at;
  uint64_t inputs = 0;
  bool log_ended = false, stuck = false;
  uint64_t events = 0;
  std::deque<log::Event> recent;  // which only a report of a divergence shows
  void visit(StateVisitor& visitor) {
    visitor("log_offset", cursor.offset);
    visitor("log_block", cursor.block);
    visitor("log_event", cursor.event);
    visitor("behind_end", cursor.ended);
    visitor("at_stops", at.stops);
    visitor("at_ticks", at.ticks);
    visitor("inputs", inputs);
    visitor("log_ended", log_ended);
    visitor("stuck", stuck);
    visitor("events", events);
  }
};

// Threads: confined to the vCPU's thread.
class ReplayJournal final : public vmm::Journal {
 public:
  // `digest_every`: k of the manifest. `total`: null for vCPUs that run in parallel. References outlive the
  // journal.
  ReplayJournal(VcpuId vcpu, log::VcpuLogReader reader, PageOrder& order, TotalOrder* total, ept::View& view,
                uint64_t digest_every);
  ~ReplayJournal() override;

  Result<std::optional<vmm::AsyncEvent>> next_async() override;
  Status wait() override;
  Ticks next_stop() override;
  [[nodiscard]] bool stops_exactly() const override { return true; }
  void yield() override {}
  [[nodiscard]] bool kicked() const override { return order_.aborted(); }
  [[nodiscard]] bool may_stop_in_user_mode() const override { return false; }
  Result<std::optional<vmm::UserStop>> next_user_stop() override;
  Status stopped_in_user_mode(const vmm::UserStop& stop) override;
  // Whether that is in a loop that waits; nothing happens.
  [[nodiscard]] bool spins_next();
  Result<vmm::Acquired> acquire(std::span<const PageRight> needed, bool again) override;
  [[nodiscard]] bool others_first() const override;
  [[nodiscard]] uint64_t moment() const override { return total_ == nullptr ? 0 : total_->next().raw; }
  bool is_over() override;
  Status stopped(uint64_t registers) override;
  Status compared_machine(uint64_t digest) override;
  Status ended(uint64_t registers) override;
  Result<uint64_t> value(log::Source source) override;
  // What the guest does to the world was done when it was recorded.
  void perform(const vmm::Effect& /*effect*/) override {}
  void stop_machine(const vmm::MachineStop& /*stop*/) override {}

  // True if this vCPU's log ended without End: the recording is a prefix.
  [[nodiscard]] bool log_ended() const { return log_ended_; }
  [[nodiscard]] bool stuck() const { return stuck_; }
  [[nodiscard]] uint64_t events() const { return events_; }
  // Stops the vCPU at this position (its stops and, with a clock that ticks, its ticks) to be looked at, as
  // the log would; nothing: not any more.
  void pause_at(std::optional<Position> position) { pause_ = position; }
  // The same, where the sum of its stops and ticks comes to this.
  void pause_at_sum(std::optional<uint64_t> sum) { pause_at_sum_ = sum; }

  [[nodiscard]] ReplayJournalState save() const;
  // Errors: kDamaged.
  Status restore(const ReplayJournalState& state);

 private:
  // The next event if it belongs to this position, else null. Sets log_ended_ at the end of the log.
  Result<const log::Event*> due();
  Status consume();
  [[nodiscard]] bool is_due(Ticket ticket) const { return total_ == nullptr || total_->is_due(ticket); }
  void took(Ticket ticket);
  // Of what the log holds here, a copy.
  template <typename Arrival>
  Result<std::optional<vmm::AsyncEvent>> arrives(Arrival what);
  Status lose(const log::Loss& loss);
  Status gain(const log::Gain& gain);
  Result<bool> wait_for(std::span<const log::PageStep> steps);
  Status check_pages(std::span<const log::PageStep> steps) const;
  tl::unexpected<Error> diverge(const std::string& found);
  [[nodiscard]] bool covered(std::span<const PageRight> needed) const;
  [[nodiscard]] std::vector<PageRight> least_granted(std::span<const PageRight> needed) const;

  VcpuId vcpu_;
  log::VcpuLogReader reader_;
  PageOrder& order_;
  TotalOrder* total_;
  std::optional<Position> pause_;
  std::optional<uint64_t> pause_at_sum_;
  ept::View& view_;
  uint64_t digest_every_;
  bool log_ended_ = false;
  bool stuck_ = false;  // waited for a transition that never came
  uint64_t events_ = 0;
  std::deque<log::Event> recent_;
};

}  // namespace reprise::replay
