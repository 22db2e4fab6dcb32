// The order of page transitions between the vCPUs of a replay: each vCPU goes as far as the others' pages
// allow.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/gate.h"
#include "base/mutex.h"
#include "base/state.h"
#include "base/units.h"
#include "log/event.h"

namespace reprise::replay {

// What a PageOrder has counted.
struct PageOrderState {
  std::vector<uint32_t> versions;
  std::vector<uint64_t> exclusive_tickets;
  uint64_t ticket_sum = 0, tickets_counted = 0;
  void visit(StateVisitor& visitor) {
    visitor("versions", versions);
    visitor("exclusive_tickets", exclusive_tickets);
    visitor("ticket_sum", ticket_sum);
    visitor("tickets_counted", tickets_counted);
  }
};

// A page's version counts its transitions. Whoever gains a page waits until as many transitions have happened
// as in the recording; whoever loses one just counts on. That is enough: while a page is held for writing
// nobody but its holder can make the next transition, and transitions of readers among themselves commute.
// Threads: synchronised inside.
class PageOrder {
 public:
  // `gate`: which the vCPUs' threads are members of; null if nobody waits. It outlives this.
  PageOrder(uint64_t pages, uint32_t vcpus, Gate* gate = nullptr);

  enum class Wait { kReady, kStuck, kAborted };
  // Blocks until every page of `steps` has had at least `version` transitions. kStuck: every vCPU waits or
  // has finished, so that can never happen.
  Wait wait_for(std::span<const log::PageStep> steps);
  // The page's transition is done. `ticket` must exceed the tickets of the page's transitions with which it
  // does not commute: false if it does not.
  bool advance(const log::PageStep& step, Ticket ticket, bool exclusive);
  [[nodiscard]] uint32_t version(PageNumber page) const {
    return versions_[page.raw].load(std::memory_order_acquire);
  }
  [[nodiscard]] uint64_t pages() const { return page_count_; }

  // This vCPU makes no transition any more.
  void finish();
  // Wakes and fails all waiters, now and later: another vCPU has diverged.
  void abort();
  [[nodiscard]] bool aborted() const { return aborted_.load(std::memory_order_acquire); }

  // A transition with this ticket has happened.
  void count(Ticket ticket) {
    ticket_sum_.fetch_add(ticket_hash(ticket), std::memory_order_relaxed);
    tickets_counted_.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t tickets_counted() const { return tickets_counted_.load(std::memory_order_relaxed); }
  // Sum over all tickets counted of a hash of each: equal sums mean equal sets, but for chance (2^-64).
  [[nodiscard]] uint64_t ticket_sum() const { return ticket_sum_.load(std::memory_order_relaxed); }
  static uint64_t ticket_hash(Ticket ticket);

  // For vCPUs that run one at a time: nobody may wait.
  [[nodiscard]] PageOrderState save() const;
  void restore(const PageOrderState& state);

 private:
  [[nodiscard]] bool ready(std::span<const log::PageStep> steps) const;
  void wake();
  void check_stuck() REQUIRES(mutex_);

  uint64_t page_count_;
  Gate* gate_;
  std::unique_ptr<std::atomic<uint32_t>[]> versions_;
  std::unique_ptr<std::atomic<uint64_t>[]> exclusive_tickets_;  // of each page's last exclusive transition
  std::atomic<uint64_t> ticket_sum_{0};
  std::atomic<uint64_t> tickets_counted_{0};
  std::atomic<bool> aborted_{false};
  std::atomic<uint32_t> sleepers_{0};
  Mutex mutex_;
  Condition changed_;
  uint32_t active_ GUARDED_BY(mutex_);  // vCPUs that neither wait nor have finished
  std::vector<std::span<const log::PageStep>> waiting_ GUARDED_BY(mutex_);
  uint64_t changes_ GUARDED_BY(mutex_) = 0;
  bool stuck_ GUARDED_BY(mutex_) = false;
};

}  // namespace reprise::replay
