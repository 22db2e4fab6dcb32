#include "ept/view.h"

#include <algorithm>

#include "base/check.h"

namespace reprise::ept {

View::View(uint64_t ram_pages, uint64_t tokens, std::unique_ptr<PageMapper> mapper)
    : ram_pages_(ram_pages), mapper_(std::move(mapper)) {
  rights_.resize(ram_pages + tokens, static_cast<uint8_t>(Right::kNone));
  if (mapper_ == nullptr)
    std::fill_n(rights_.begin(), ram_pages, static_cast<uint8_t>(Right::kWrite));
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
      if (!is_token(pages[i]) && mapper_ != nullptr)
        TRY(mapper_->set(pages[i], n, static_cast<Right>(from), right));
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
  if (!is_token(page) && mapper_ != nullptr) TRY(mapper_->set(page, 1, from, left));
  rights_[page.raw] = static_cast<uint8_t>(left);
  return {};
}

Status View::restore(std::span<const uint8_t> rights) {
  REPRISE_CHECK(rights.size() == rights_.size());
  for (size_t first = 0; first < rights.size();) {
    const uint8_t from = rights_[first];
    const uint8_t to = rights[first];
    size_t end = first + 1;
    while (end < rights.size() && rights_[end] == from && rights[end] == to && !is_token(PageNumber(end))) ++end;
    if (from != to && !is_token(PageNumber(first)) && mapper_ != nullptr)
      TRY(mapper_->set(PageNumber(first), end - first, static_cast<Right>(from), static_cast<Right>(to)));
    std::fill(rights_.begin() + static_cast<ptrdiff_t>(first), rights_.begin() + static_cast<ptrdiff_t>(end), to);
    first = end;
  }
  return {};
}

Status View::refresh(PageNumber page) {
  if (is_token(page) || is_exempt(page) || mapper_ == nullptr) return {};
  const Right now = right(page);
  TRY(mapper_->set(page, 1, now, Right::kNone));
  return mapper_->set(page, 1, Right::kNone, now);
}

}  // namespace reprise::ept
