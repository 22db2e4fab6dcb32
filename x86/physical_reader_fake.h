// Guest memory for tests: pages that exist once they are written, and pages that may be hidden.
#pragma once

#include <cstring>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "x86/page_walk.h"

namespace reprise::x86 {

// Threads: confined to the test.
class FakePhysicalReader : public PhysicalReader {
 public:
  // Reads zeros from pages below `ram_bytes` that nobody wrote; fails above.
  explicit FakePhysicalReader(uint64_t ram_bytes = 1ull << 32) : ram_bytes_(ram_bytes) {}

  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override {
    crossed_page |= gpa.raw / kPageSize != (gpa.raw + out.size() - 1) / kPageSize;
    if (gpa.raw >= ram_bytes_ || out.size() > ram_bytes_ - gpa.raw || hidden_.contains(page_of(gpa)))
      return false;
    for (size_t i = 0; i < out.size(); ++i) {
      const auto page = pages_.find((gpa.raw + i) / kPageSize);
      out[i] = page == pages_.end() ? 0 : page->second[(gpa.raw + i) % kPageSize];
    }
    return true;
  }

  void write(uint64_t gpa, std::span<const uint8_t> bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      auto& page = pages_[(gpa + i) / kPageSize];
      page.resize(kPageSize);
      page[(gpa + i) % kPageSize] = bytes[i];
    }
  }
  void write(uint64_t gpa, uint64_t value, size_t bytes = 8) {
    uint8_t raw[8];
    std::memcpy(raw, &value, sizeof raw);
    write(gpa, std::span<const uint8_t>(raw, bytes));
  }

  // The view has no right to the page: reads fail.
  void hide(uint64_t page) { hidden_.insert(PageNumber(page)); }
  void show(PageNumber page) { hidden_.erase(page); }

  mutable bool crossed_page = false;  // a read broke the promise of PhysicalReader::read

 private:
  uint64_t ram_bytes_;
  std::map<uint64_t, std::vector<uint8_t>> pages_;
  std::set<PageNumber> hidden_;
};

}  // namespace reprise::x86
