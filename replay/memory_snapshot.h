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

// Threads: immutable; take() and put_back() while no vCPU executes.
class MemorySnapshot {
 public:
  using Page = std::array<uint8_t, kPageSize>;

  // `before`: the snapshot that most pages are expected to be equal to; may be null. Errors: kHost.
  // Cost: one pass over the pages that are in use; memory for those that changed.
  static Result<MemorySnapshot> take(const vmm::GuestMemory& memory, const MemorySnapshot* before);
  MemorySnapshot() = default;
  // All zeros. A new one is made page by page, in order. Requires: `number` below `pages`, not added before.
  explicit MemorySnapshot(uint64_t pages) : pages_(pages) {}
  void add(PageNumber number, std::span<const uint8_t> bytes);
  // Keeps pages that are equal once for both. Requires: as many pages.
  void share_with(const MemorySnapshot& other);
  // Those that are not zeros, in order.
  void for_each_page(const std::function<void(PageNumber, std::span<const uint8_t>)>& visit) const;

  // Errors: kHost. Cost: one pass over the pages that are in use now; writes those that differ.
  Status put_back(vmm::GuestMemory& memory) const;

  // Pages that this snapshot does not share with `before`.
  [[nodiscard]] uint64_t own_pages() const { return own_pages_; }
  // Adds those that it holds.
  void add_pages(std::unordered_set<const Page*>& pages) const;

 private:
  std::vector<std::shared_ptr<const Page>> pages_;  // by number; null: zeros
  uint64_t own_pages_ = 0;
};

}  // namespace reprise::replay
