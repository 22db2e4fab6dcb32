// One vCPU's view of guest memory: what it may read and write right now, page by page.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/page_right.h"
#include "base/result.h"
#include "base/units.h"
#include "ept/page_mapper.h"

namespace reprise::ept {

// Pages are RAM pages (0 .. ram_pages-1) or *tokens*: page numbers above RAM that stand for something else
// that has owners (a shared device, the turn). Tokens have rights but no mapping.
//
// The turn is the first token. Who has it for writing is *alone*: nobody else executes, so it may use all
// memory and all devices, whatever rights it has. A page that it touches then without having the right to it
// is *borrowed*: mapped for writing, without a stop or an event, and given back before the vCPU executes
// beside others again. So rights do not change while one vCPU at a time executes, and what is borrowed leaves
// no trace.
// Threads: confined to the view's vCPU thread.
class View {
 public:
  // `initial`: the right to all RAM pages at the start, as `mapper` has mapped them: none, or kWrite where
  // nothing is ever taken away (an unrecorded run, or serial mode).
  View(uint64_t ram_pages, uint64_t tokens, std::unique_ptr<PageMapper> mapper, Right initial = Right::kNone);

  [[nodiscard]] Right right(PageNumber page) const;
  // Whether the vCPU may use it so now.
  [[nodiscard]] bool allows(PageNumber page, Right needed) const {
    return right(page) >= needed || (is_alone() && page.raw < rights_.size());
  }
  [[nodiscard]] PageNumber turn() const { return PageNumber(ram_pages_); }
  [[nodiscard]] bool is_alone() const { return right(turn()) == Right::kWrite; }
  [[nodiscard]] uint64_t ram_pages() const { return ram_pages_; }
  [[nodiscard]] bool is_token(PageNumber page) const { return page.raw >= ram_pages_; }

  // Gives `pages` the `right`; neighbours that change in the same way are mapped in one call. Errors: kHost.
  Status grant(std::span<const PageNumber> pages, Right right);
  // Reduces one page to `left`. Requires: left <= right(page). Errors: kHost.
  Status revoke(PageNumber page, Right left);
  // Whether the host took the mapping of a page that this view grants away. Cost: a system call.
  [[nodiscard]] bool is_lost(PageNumber page) const;
  // KVM faulted on a page that this view allows: the host took its mapping away (reclaim, migration), or the
  // vCPU is alone and has not touched it yet. Maps it, and where it is borrowed, pages around it. Errors:
  // kHost.
  Status refresh(PageNumber page);
  // What borrowing and giving back has cost so far. Nanoseconds.
  [[nodiscard]] uint64_t borrow_ns() const { return borrow_ns_; }
  // Before an instruction that must not fault: maps a page that may be used and is not mapped so. Errors:
  // kHost.
  Status prepare(PageNumber page);
  // All rights, as restore() takes them back: for checkpoints.
  [[nodiscard]] std::span<const uint8_t> rights() const { return rights_; }
  // Requires: rights that this view once had. Errors: kHost.
  Status restore(std::span<const uint8_t> rights);
  // Maps a page with `most` at most, whatever its right is and becomes, until it is revealed: a debugger
  // watches it. Requires: RAM, and not exempt. Errors: kHost.
  Status restrict(PageNumber page, Right most);
  Status reveal(PageNumber page);
  // Calls `visit` with all RAM pages that this view could write to at some time since the last call, and not
  // with exempt ones. What is borrowed is given back, and borrowed again when it is touched. Errors: kHost.
  Status take_writable(const std::function<void(PageNumber)>& visit);
  // A page that is backed apart in this view (private to the vCPU): always writable, never revoked.
  void exempt(PageNumber page) { rights_[page.raw] = kExempt; }
  [[nodiscard]] bool is_exempt(PageNumber page) const {
    return page.raw < rights_.size() && rights_[page.raw] == kExempt;
  }

 private:
  static constexpr uint8_t kExempt = 3;  // compares above kWrite
  Status map(PageNumber first, uint64_t count, Right from, Right to);
  [[nodiscard]] Right most(PageNumber page) const;
  // What the page is mapped with, but for what a debugger restricts.
  [[nodiscard]] Right mapped(PageNumber page) const {
    return page.raw < ram_pages_ && borrowed_[page.raw] ? Right::kWrite : right(page);
  }
  // What the vCPU may do with the page now.
  [[nodiscard]] Right allowed(PageNumber page) const { return is_alone() ? Right::kWrite : right(page); }
  [[nodiscard]] bool can_borrow(PageNumber page) const;
  Status borrow(PageNumber page);
  Status give_back();

  uint64_t ram_pages_;
  std::unique_ptr<PageMapper> mapper_;
  std::vector<uint8_t> rights_;
  std::vector<bool> was_writable_;  // RAM pages, since take_writable()
  std::vector<bool> borrowed_;      // RAM pages: mapped for writing, whatever the right is
  struct Run {
    PageNumber first;
    uint64_t count = 0;
  };
  uint64_t borrow_ns_ = 0;
  std::vector<Run> borrowed_runs_;  // which hold all borrowed pages
  std::map<PageNumber, Right> restricted_;
};

}  // namespace reprise::ept
