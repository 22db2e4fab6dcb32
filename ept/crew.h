// The recording side of CREW: takes pages from other vCPUs and gives them up, and reports each transition to
// be logged.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "ept/domains.h"
#include "ept/mailbox.h"
#include "ept/ownership.h"
#include "ept/policy.h"
#include "ept/spin_look.h"
#include "ept/view.h"
#include "log/event.h"

namespace reprise::ept {

// Where a vCPU's transitions go. Threads: called on the vCPU's own thread.
class OrderLog {
 public:
  virtual ~OrderLog() = default;
  virtual void lost(const log::Loss& loss) = 0;
  virtual void gained(log::Gain gain) = 0;
};

// Times of one vCPU's transitions. Nanoseconds.
struct CrewTimes {
  uint64_t transfers = 0;                         // grants that had to take a page from somebody
  uint64_t uncontended = 0;                       // grants that had not
  uint64_t wait_ns = 0;                           // from the request for pages until the last holder gave way
  std::array<uint64_t, kMaxVcpus> wait_for_ns{};  // the same, by holder; of several, an equal part each
  uint64_t turn_ns = 0;                           // from the request for the turn on
  uint64_t touch_ns = 0;   // changing our own view, where nobody had to give way; also while alone
  uint64_t grant_ns = 0;   // the same, where somebody had
  uint64_t revoke_ns = 0;  // giving up pages: changing our own view
  uint64_t revokes = 0;
};

// One vCPU's membership in the protocol.
// Threads: confined to the vCPU's thread; talks to other members through `mailboxes`.
class CrewMember {
 public:
  // All references outlive the member. `mailboxes` is indexed by VcpuId. `domains`: null where the vCPUs
  // never merge and split.
  CrewMember(VcpuId vcpu, Ownership& ownership, std::span<const std::unique_ptr<Mailbox>> mailboxes,
             View& view, OrderLog& log, const PolicyOptions& policy, Domains* domains = nullptr);

  // Gets all of `needed` (sorted by page, no page twice) in one step, waiting for their holders. While it
  // waits, pages are given up to others, and letters that are not Revokes are kept for take_letters().
  // `again`: the same instruction faulted before and has not retired; then what it got before is asked for
  // too, so that two vCPUs cannot take pages from each other's unfinished instructions for ever. False: the
  // machine stops meanwhile; nothing was granted, and this member must not be used for acquire() again.
  // Errors: kHost (a mapping call failed), kGuest (a holder makes no safepoint).
  Result<bool> acquire(std::span<const PageRight> needed, bool again);

  // Answers the mail. `waiting`: this vCPU executes nothing for now, so pages held only a short while may go
  // as well.
  Status service(bool waiting);
  // Letters other than Revoke, oldest first.
  std::deque<Letter>& letters() { return letters_; }
  // Waits for a letter.
  void wait_for_mail();

  // Gives up the turn if it is shared and the vCPUs are merged, or are to be from now on: then it is asked
  // for alone. Call at a position where pages may be lost. True: it was given up.
  Result<bool> merge_if_due();
  // Chaos: merges or splits, now and then.
  Status flip_domains();
  // Whether somebody wants to know if this vCPU spins (ept/spin_look.h); its registers at a position, as a
  // digest. True: it does, and whoever wants what it has may as well have it.
  [[nodiscard]] bool is_looked_at() const { return look_.is_on(); }
  bool look_at(Gva rip, uint64_t registers);
  // Chaos: drops some pages for no reason. Call at a position where pages may be lost.
  Status drop_some();
  // Chaos: does nothing for a while but giving up pages to others. Call at a position where pages may be
  // lost.
  Status hold_back();

  Policy& policy() { return policy_; }
  [[nodiscard]] CrewTimes times() const {
    CrewTimes times = times_;
    times.touch_ns += view_.borrow_ns();
    return times;
  }

 private:
  Mailbox& own() { return *mailboxes_[vcpu_.raw]; }
  enum class Waited { kReady, kExpired, kStopping };
  // Gives up pages to others for so long, and does nothing else. Never kReady; kExpired at once if `ns` is 0.
  Result<Waited> linger(uint64_t ns);
  struct Contended {
    PageRight want;
    uint64_t taken_ns = 0;
    uint32_t takes = 0;  // in a row, each recent when the next came
  };
  Result<Waited> make_busy(PageNumber page);
  Result<Waited> take_from_others(const PageRight& want);
  Result<Waited> clear_conflicts(const PageRight& want, const Ownership::Conflicts& conflicts);
  [[nodiscard]] bool is_turn(PageNumber page) const { return page == view_.turn(); }
  uint64_t hold_ns(const PageRight& want, const Ownership::Conflicts& conflicts);
  Result<bool> give_up_turn();
  void enter(Activity activity);
  void note_wait(PageNumber page, uint32_t holders, uint64_t ns);
  Result<Waited> wait_for(const std::function<bool()>& ready, uint64_t deadline_ns);
  Result<Waited> wait_and_look(const std::function<bool()>& ready, const Ownership::Conflicts& conflicts,
                               uint64_t deadline_ns);
  Status give_up(PageNumber page, Right left);
  // How long to wait before `wanted` may be taken back.
  [[nodiscard]] uint64_t blocked_ns(std::span<const PageRight> wanted) const;
  [[nodiscard]] bool is_writable(PageNumber first, uint64_t count) const;
  // Untouched pages are granted in runs: aligned blocks of a power of two, as a buddy allocator's. That block
  // is granted whose buddy this vCPU writes already. So who uses all of some memory gets it in runs that
  // double, in whatever direction it goes, and has at most twice of what it has touched. 0: no run.
  [[nodiscard]] uint64_t run_length(PageNumber touched) const;
  [[nodiscard]] bool is_next_of_run(PageNumber page) const;
  bool begin_untouched(PageNumber page);
  void add_untouched(std::vector<PageNumber>& pages, Right right);
  void release(PageNumber page);
  Status grant(std::span<const PageRight> wanted);
  Right strengthen(const PageRight& want, bool again);
  void add_contended(std::vector<PageRight>& wanted);

  VcpuId vcpu_;
  Ownership& ownership_;
  std::span<const std::unique_ptr<Mailbox>> mailboxes_;
  View& view_;
  OrderLog& log_;
  Policy policy_;
  Domains* domains_;
  SpinLook look_;
  std::array<SpinForecast, kMaxVcpus> forecasts_;  // of those that this vCPU waits for
  std::deque<Letter> letters_;
  std::vector<Revoke> deferred_;  // revokes of pages that may be kept a little longer
  std::vector<PageRight> last_;   // what the last acquire() got
  std::vector<Contended>
      contended_;                   // pages that others had when this vCPU needed them; the latest kContended
  std::vector<PageNumber> recent_;  // ring of pages granted lately, for drop_some()
  size_t recent_next_ = 0;
  std::vector<uint8_t>
      reads_then_writes_;          // per RAM page: saturating count of read grants that became write grants
  std::vector<uint64_t> lost_ns_;  // per RAM page: when it was lost; empty where nobody asks (block)
  CrewTimes times_;
};

}  // namespace reprise::ept
