// The guest's RAM at one moment. Snapshots share the pages that did not change between them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest_memory.h"

namespace reprise::replay {

class MemorySnapshot;

// What is known of guest memory without looking at it: it was as in `then` (null: nothing is known), and only
// `written` pages, by number, were written to since.
struct KnownMemory {
  const MemorySnapshot* then;
  const std::vector<bool>& written;
};

// Threads: immutable; take() and put_back() while no vCPU executes.
class MemorySnapshot {
 public:
  using Page = std::array<uint8_t, kPageSize>;

  // `before`: the snapshot that written pages may be equal to; may be null. Errors: kHost.
  // Cost: looks at written pages; at all that are there, if nothing is known. Memory for those that changed.
  static Result<MemorySnapshot> take(const vmm::GuestMemory& memory, const MemorySnapshot* before,
                                     const KnownMemory& known);
  MemorySnapshot() = default;
  // All zeros. A new one is made page by page, in order. Requires: `number` below `pages`, not added before.
  explicit MemorySnapshot(uint64_t pages) : pages_(pages) {}
  void add(PageNumber number, std::span<const uint8_t> bytes);
  // Keeps pages that are equal once for both. Requires: as many pages.
  void share_with(const MemorySnapshot& other);
  // The pages that are not zeros, with their numbers.
  void visit(StateVisitor& visitor);

  // Errors: kHost. Cost: looks at written pages and at those in which it differs from what is known; at all
  // that are there, if nothing is. Writes those that differ.
  Status put_back(const vmm::GuestMemory& memory, const KnownMemory& known) const;

  // Pages that this snapshot does not share with `before`.
  [[nodiscard]] uint64_t own_pages() const { return own_pages_; }
  // Adds those that it holds.
  void add_pages(std::unordered_set<const Page*>& pages) const;

 private:
  static Result<MemorySnapshot> take_all(const vmm::GuestMemory& memory, const MemorySnapshot* before);
  // The page that must be there now; equal ones are those of `before`.
  void note(PageNumber number, std::span<const uint8_t> bytes, const MemorySnapshot* before);
  Status put_back_all(const vmm::GuestMemory& memory) const;
  void put_back_page(const vmm::GuestMemory& memory, PageNumber number, std::span<const uint8_t> now) const;

  std::vector<std::shared_ptr<const Page>> pages_;  // by number; null: zeros
  uint64_t own_pages_ = 0;
};

}  // namespace reprise::replay
