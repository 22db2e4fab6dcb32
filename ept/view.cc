#include "ept/view.h"

#include <algorithm>

#include "base/check.h"

namespace reprise::ept {

View::View(uint64_t ram_pages, uint64_t tokens, std::unique_ptr<PageMapper> mapper, Right initial)
    : ram_pages_(ram_pages), mapper_(std::move(mapper)) {
  rights_.resize(ram_pages + tokens, static_cast<uint8_t>(Right::kNone));
  std::fill_n(rights_.begin(), ram_pages, static_cast<uint8_t>(initial));
  was_writable_.resize(ram_pages, initial == Right::kWrite);
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
    size_t n = 1;
    while (i + n < pages.size() && pages[i + n].raw == first + n && !is_token(pages[i + n]) &&
           rights_[first + n] == from)
      ++n;
    if (from < static_cast<uint8_t>(right)) {
      TRY(map(pages[i], n, static_cast<Right>(from), right));
      std::fill_n(rights_.begin() + static_cast<ptrdiff_t>(first), n, static_cast<uint8_t>(right));
    }
    i += n;
  }
  return {};
}

Status View::revoke(PageNumber page, Right left) {
  REPRISE_CHECK(page.raw < rights_.size() && rights_[page.raw] != kExempt);
  const Right from = right(page);
  if (from <= left) return {};
  TRY(map(page, 1, from, left));
  rights_[page.raw] = static_cast<uint8_t>(left);
  return {};
}

Status View::restore(std::span<const uint8_t> rights) {
  REPRISE_CHECK(rights.size() == rights_.size());
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

void View::take_writable(const std::function<void(PageNumber)>& visit) {
  for (uint64_t page = 0; page < ram_pages_; ++page) {
    if (is_exempt(PageNumber(page))) continue;
    if (was_writable_[page]) visit(PageNumber(page));
    was_writable_[page] = allows(PageNumber(page), Right::kWrite);
  }
}

bool View::is_lost(PageNumber page) const {
  if (is_token(page) || is_exempt(page)) return false;
  return std::min(right(page), most(page)) != Right::kNone && mapper_->is_lost(page);
}

Status View::refresh(PageNumber page) {
  if (is_token(page) || is_exempt(page)) return {};
  const Right now = right(page);
  TRY(map(page, 1, now, Right::kNone));
  return map(page, 1, Right::kNone, now);
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
  if (right(page) > most) TRY(mapper_->set(page, 1, right(page), most));
  restricted_[page] = most;
  return {};
}

Status View::reveal(PageNumber page) {
  const auto restricted = restricted_.find(page);
  if (restricted == restricted_.end()) return {};
  const Right bound = restricted->second;
  restricted_.erase(restricted);
  if (right(page) > bound) TRY(mapper_->set(page, 1, bound, right(page)));
  return {};
}

}  // namespace reprise::ept
