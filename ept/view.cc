#include "ept/view.h"

#include <algorithm>

#include "base/check.h"
#include "base/time.h"

namespace reprise::ept {
namespace {

// A fault costs as much as mapping some hundred pages. Who touches one page of 256 KiB will often touch
// others; who has touched some of these has much to do, and gets up to 2 MiB at a time.
constexpr uint64_t kBorrowedTogether = 64;
constexpr uint64_t kMostTogether = 512;
constexpr uint64_t kRunsUntilTwice = 8;

}  // namespace

View::View(uint64_t ram_pages, uint64_t tokens, std::unique_ptr<PageMapper> mapper, Right initial)
    : ram_pages_(ram_pages), mapper_(std::move(mapper)) {
  rights_.resize(ram_pages + tokens, static_cast<uint8_t>(Right::kNone));
  std::fill_n(rights_.begin(), ram_pages, static_cast<uint8_t>(initial));
  was_writable_.resize(ram_pages, initial == Right::kWrite);
  borrowed_.resize(ram_pages);
}

Right View::right(PageNumber page) const {
  if (page.raw >= rights_.size()) return Right::kNone;
  return static_cast<Right>(std::min(rights_[page.raw], static_cast<uint8_t>(Right::kWrite)));
}

Status View::grant(std::span<const PageNumber> pages, Right right) {
  for (size_t i = 0; i < pages.size();) {
    const uint64_t first = pages[i].raw;
    REPRISE_CHECK(first < rights_.size());
    const uint8_t from = rights_[first];
    const Right has = mapped(pages[i]);
    size_t n = 1;
    while (i + n < pages.size() && pages[i + n].raw == first + n && !is_token(pages[i + n]) &&
           rights_[first + n] == from && mapped(pages[i + n]) == has)
      ++n;
    if (from < static_cast<uint8_t>(right)) {
      if (has < right) TRY(map(pages[i], n, has, right));
      std::fill_n(rights_.begin() + static_cast<ptrdiff_t>(first), n, static_cast<uint8_t>(right));
    }
    i += n;
  }
  // It executes beside others from here on.
  return right == Right::kRead && this->right(turn()) == Right::kRead ? give_back() : Status{};
}

Status View::revoke(PageNumber page, Right left) {
  REPRISE_CHECK(page.raw < rights_.size() && rights_[page.raw] != kExempt);
  const Right from = right(page);
  if (from <= left) return {};
  if (page == turn() && left == Right::kRead) TRY(give_back());
  if (!is_token(page) && !borrowed_[page.raw]) TRY(map(page, 1, from, left));
  rights_[page.raw] = static_cast<uint8_t>(left);
  return {};
}

bool View::can_borrow(PageNumber page) const {
  return page.raw < ram_pages_ && !is_exempt(page) && !borrowed_[page.raw] && !restricted_.contains(page);
}

// The page, and around it those of the same block that can be borrowed in the same call.
Status View::borrow(PageNumber page) {
  const Right from = right(page);
  const uint64_t doublings = borrowed_runs_.size() / kRunsUntilTwice;
  const uint64_t together = std::min(kBorrowedTogether << std::min<uint64_t>(doublings, 8), kMostTogether);
  const PageNumber begin(page.raw / together * together);
  const auto same = [&](PageNumber other) { return can_borrow(other) && right(other) == from; };
  PageNumber first = page;
  while (first > begin && same(PageNumber(first.raw - 1))) first = PageNumber(first.raw - 1);
  PageNumber end = page + 1;
  while (end < begin + together && same(end)) end = end + 1;
  const uint64_t count = end.raw - first.raw;
  const uint64_t start = monotonic_ns();
  TRY(map(first, count, from, Right::kWrite));
  borrow_ns_ += monotonic_ns() - start;
  std::fill_n(borrowed_.begin() + static_cast<ptrdiff_t>(first.raw), count, true);
  borrowed_runs_.push_back({first, count});
  return {};
}

Status View::give_back() {
  const uint64_t start = monotonic_ns();
  for (const Run& run : borrowed_runs_) {
    for (uint64_t i = 0; i < run.count;) {
      const PageNumber first = run.first + i;
      const Right to = right(first);
      const bool borrowed = borrowed_[first.raw];
      uint64_t n = 1;
      while (i + n < run.count && right(first + n) == to && borrowed_[first.raw + n] == borrowed) ++n;
      if (borrowed && to != Right::kWrite) TRY(map(first, n, Right::kWrite, to));
      std::fill_n(borrowed_.begin() + static_cast<ptrdiff_t>(first.raw), n, false);
      i += n;
    }
  }
  borrowed_runs_.clear();
  borrow_ns_ += monotonic_ns() - start;
  return {};
}

Status View::restore(std::span<const uint8_t> rights) {
  REPRISE_CHECK(rights.size() == rights_.size());
  TRY(give_back());
  for (size_t first = 0; first < rights.size();) {
    const uint8_t from = rights_[first];
    const uint8_t to = rights[first];
    size_t end = first + 1;
    while (end < rights.size() && rights_[end] == from && rights[end] == to && !is_token(PageNumber(end)))
      ++end;
    if (from != to)
      TRY(map(PageNumber(first), end - first, static_cast<Right>(from), static_cast<Right>(to)));
    std::fill(rights_.begin() + static_cast<ptrdiff_t>(first), rights_.begin() + static_cast<ptrdiff_t>(end),
              to);
    first = end;
  }
  return {};
}

Status View::take_writable(const std::function<void(PageNumber)>& visit) {
  TRY(give_back());
  for (uint64_t page = 0; page < ram_pages_; ++page) {
    if (is_exempt(PageNumber(page))) continue;
    if (was_writable_[page]) visit(PageNumber(page));
    was_writable_[page] = right(PageNumber(page)) == Right::kWrite;
  }
  return {};
}

bool View::is_lost(PageNumber page) const {
  if (is_token(page) || is_exempt(page)) return false;
  return std::min(allowed(page), most(page)) != Right::kNone && mapper_->is_lost(page);
}

Status View::refresh(PageNumber page) {
  if (is_token(page) || is_exempt(page)) return {};
  const Right now = mapped(page);
  if (now < allowed(page)) return borrow(page);
  TRY(map(page, 1, now, Right::kNone));
  return map(page, 1, Right::kNone, now);
}

Status View::prepare(PageNumber page) {
  if (is_token(page) || is_exempt(page) || mapped(page) >= allowed(page)) return {};
  return borrow(page);
}

Right View::most(PageNumber page) const {
  const auto restricted = restricted_.find(page);
  return restricted == restricted_.end() ? Right::kWrite : restricted->second;
}

Status View::map(PageNumber first, uint64_t count, Right from, Right to) {
  if (is_token(first)) return {};
  if (to == Right::kWrite)
    std::fill_n(was_writable_.begin() + static_cast<ptrdiff_t>(first.raw), count, true);
  if (restricted_.empty()) return mapper_->set(first, count, from, to);
  for (uint64_t i = 0; i < count; ++i) {
    const Right bound = most(first + i);
    if (std::min(from, bound) != std::min(to, bound))
      TRY(mapper_->set(first + i, 1, std::min(from, bound), std::min(to, bound)));
  }
  return {};
}

Status View::restrict(PageNumber page, Right most) {
  REPRISE_CHECK(!is_token(page) && !is_exempt(page));
  TRY(reveal(page));
  if (mapped(page) > most) TRY(mapper_->set(page, 1, mapped(page), most));
  restricted_[page] = most;
  return {};
}

Status View::reveal(PageNumber page) {
  const auto restricted = restricted_.find(page);
  if (restricted == restricted_.end()) return {};
  const Right bound = restricted->second;
  restricted_.erase(restricted);
  if (mapped(page) > bound) TRY(mapper_->set(page, 1, bound, mapped(page)));
  return {};
}

}  // namespace reprise::ept
