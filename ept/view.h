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
// that has one owner at a time (a shared device, the turn in serial mode). Tokens have rights but no mapping.
// Threads: confined to the view's vCPU thread.
class View {
 public:
  // `initial`: the right to all RAM pages at the start, as `mapper` has mapped them: none, or kWrite where
  // nothing is ever taken away (an unrecorded run, or serial mode).
  View(uint64_t ram_pages, uint64_t tokens, std::unique_ptr<PageMapper> mapper, Right initial = Right::kNone);

  [[nodiscard]] Right right(PageNumber page) const;
  [[nodiscard]] bool allows(PageNumber page, Right needed) const { return right(page) >= needed; }
  [[nodiscard]] uint64_t ram_pages() const { return ram_pages_; }
  [[nodiscard]] bool is_token(PageNumber page) const { return page.raw >= ram_pages_; }

  // Gives `pages` the `right`; neighbours that change in the same way are mapped in one call. Errors: kHost.
  Status grant(std::span<const PageNumber> pages, Right right);
  // Reduces one page to `left`. Requires: left <= right(page). Errors: kHost.
  Status revoke(PageNumber page, Right left);
  // Whether the host took the mapping of a page that this view grants away. Cost: a system call.
  [[nodiscard]] bool is_lost(PageNumber page) const;
  // KVM faulted on a page that this view grants: the host took its mapping away (reclaim, migration). Maps it
  // again.
  Status refresh(PageNumber page);
  // All rights, as restore() takes them back: for checkpoints.
  [[nodiscard]] std::span<const uint8_t> rights() const { return rights_; }
  // Requires: rights that this view once had. Errors: kHost.
  Status restore(std::span<const uint8_t> rights);
  // Maps a page with `most` at most, whatever its right is and becomes, until it is revealed: a debugger
  // watches it. Requires: RAM, and not exempt. Errors: kHost.
  Status restrict(PageNumber page, Right most);
  Status reveal(PageNumber page);
  // Calls `visit` with all RAM pages that this view could write to at some time since the last call, and not
  // with exempt ones.
  void take_writable(const std::function<void(PageNumber)>& visit);
  // A page that is backed apart in this view (private to the vCPU): always writable, never revoked.
  void exempt(PageNumber page) { rights_[page.raw] = kExempt; }
  [[nodiscard]] bool is_exempt(PageNumber page) const {
    return page.raw < rights_.size() && rights_[page.raw] == kExempt;
  }

 private:
  static constexpr uint8_t kExempt = 3;  // compares above kWrite
  Status map(PageNumber first, uint64_t count, Right from, Right to);
  [[nodiscard]] Right most(PageNumber page) const;

  uint64_t ram_pages_;
  std::unique_ptr<PageMapper> mapper_;
  std::vector<uint8_t> rights_;
  std::vector<bool> was_writable_;  // RAM pages, since take_writable()
  std::map<PageNumber, Right> restricted_;
};

}  // namespace reprise::ept
