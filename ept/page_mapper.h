// The one thing a view needs from the host: make a page of its mapping absent, read-only or writable.
#pragma once

#include "base/result.h"
#include "base/units.h"

namespace reprise::ept {

// Threads: confined to the view's vCPU thread.
class PageMapper {
 public:
  virtual ~PageMapper() = default;
  // Changes `count` pages from `first`, all of which have permission `from`, to `to`. When it returns, no
  // vCPU of the view's VM has a cached translation that grants more than `to`. Errors: kHost.
  virtual Status set(PageNumber first, uint64_t count, Right from, Right to) = 0;
  // Whether the host has taken the mapping of this page away since set() gave it a permission (reclaim,
  // migration), so that the next touch faults. False where the host's kernel maps such a page again by
  // itself.
  [[nodiscard]] virtual bool is_lost(PageNumber /*page*/) const { return false; }
};

}  // namespace reprise::ept
