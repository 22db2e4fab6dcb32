// Which pages of guest RAM the VMM has written to. What vCPUs write is asked of KVM and of their views
// (Machine::take_written_pages()).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/units.h"

namespace reprise::vmm {

// Threads: note() any; take() while nobody notes.
class WrittenPages {
 public:
  explicit WrittenPages(uint64_t pages) : pages_(pages), noted_(new std::atomic<uint8_t>[pages]()) {}

  // Before something is written there. Requires: all of it is RAM.
  void note(Gpa at, uint64_t bytes) {
    if (bytes == 0) return;
    for (uint64_t page = page_of(at).raw; page <= page_of(at + (bytes - 1)).raw; ++page)
      noted_[page].store(1, std::memory_order_relaxed);
  }
  // Those noted since the last call, by number.
  [[nodiscard]] std::vector<bool> take() {
    std::vector<bool> taken(pages_);
    for (uint64_t page = 0; page < pages_; ++page)
      taken[page] = noted_[page].exchange(0, std::memory_order_relaxed) != 0;
    return taken;
  }

 private:
  uint64_t pages_;
  std::unique_ptr<std::atomic<uint8_t>[]> noted_;
};

}  // namespace reprise::vmm
