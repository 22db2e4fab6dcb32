// Places for the words that several workers use: epochs, hazard pointers, locks, the anchors of structures.
#pragma once

#include <new>

#include "reclamation/settings.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"

namespace reprise::guest::reclamation {

class SharedWords {
 public:
  explicit SharedWords(Layout layout) : layout_(layout) {}

  // A T, beside the one before (packed), on a cache line of its own (padded), or on a page of its own
  // (paged).
  template <typename T>
  T* make() {
    static_assert(sizeof(T) <= kPage);
    const uint64_t apart = layout_ == Layout::kPaged    ? kPage
                           : layout_ == Layout::kPadded ? kCacheLine
                                                        : alignof(T);
    next_ = (next_ + apart - 1) & ~(apart - 1);
    if (next_ + sizeof(T) > end_) {
      next_ = reinterpret_cast<uint64_t>(allocate(kPage));
      end_ = next_ + kPage;
    }
    T* made = ::new (reinterpret_cast<void*>(next_)) T{};
    next_ += sizeof(T);
    return made;
  }

 private:
  Layout layout_;
  uint64_t next_ = 0, end_ = 0;
};

}  // namespace reprise::guest::reclamation
