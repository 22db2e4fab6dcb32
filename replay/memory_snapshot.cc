#include "replay/memory_snapshot.h"

#include <algorithm>
#include <cstring>

namespace reprise::replay {

Result<MemorySnapshot> MemorySnapshot::take(const vmm::GuestMemory& memory, const MemorySnapshot* before) {
  MemorySnapshot snapshot(memory.pages());
  // Most pages are as they were: that is looked at first, and once.
  TRY(memory.for_each_page([&](PageNumber number, std::span<const uint8_t> bytes) {
    const Page* const old = before == nullptr ? nullptr : before->pages_[number.raw].get();
    if (old != nullptr && std::memcmp(old->data(), bytes.data(), kPageSize) == 0)
      snapshot.pages_[number.raw] = before->pages_[number.raw];
    else if (!vmm::is_zeros(bytes))
      snapshot.add(number, bytes);
  }));
  return snapshot;
}

void MemorySnapshot::add(PageNumber number, std::span<const uint8_t> bytes) {
  auto page = std::make_shared<Page>();
  std::ranges::copy(bytes, page->begin());
  pages_[number.raw] = std::move(page);
  ++own_pages_;
}

void MemorySnapshot::share_with(const MemorySnapshot& other) {
  for (size_t number = 0; number < pages_.size(); ++number) {
    auto& page = pages_[number];
    const auto& same = other.pages_[number];
    if (page == nullptr || same == nullptr || page == same || *page != *same) continue;
    page = same;
    --own_pages_;
  }
}

void MemorySnapshot::for_each_page(
    const std::function<void(PageNumber, std::span<const uint8_t>)>& visit) const {
  for (size_t number = 0; number < pages_.size(); ++number)
    if (pages_[number] != nullptr) visit(PageNumber(number), *pages_[number]);
}

void MemorySnapshot::add_pages(std::unordered_set<const Page*>& pages) const {
  for (const auto& page : pages_)
    if (page != nullptr) pages.insert(page.get());
}

Status MemorySnapshot::put_back(vmm::GuestMemory& memory) const {
  const auto ram = memory.ram();
  const auto page_at = [&](size_t number) { return ram.subspan(number * kPageSize, kPageSize); };
  size_t next = 0;  // pages below are as they should be
  const auto fill_to = [&](size_t end) {
    for (; next < end; ++next)
      if (pages_[next] != nullptr) std::ranges::copy(*pages_[next], page_at(next).begin());
  };
  TRY(memory.for_each_page([&](PageNumber number, std::span<const uint8_t> bytes) {
    fill_to(number.raw);
    const auto& wanted = pages_[number.raw];
    if (wanted == nullptr) {
      if (!vmm::is_zeros(bytes)) std::ranges::fill(page_at(number.raw), uint8_t{0});
    } else if (std::memcmp(wanted->data(), bytes.data(), kPageSize) != 0) {
      std::ranges::copy(*wanted, page_at(number.raw).begin());
    }
    next = number.raw + 1;
  }));
  fill_to(pages_.size());
  return {};
}

}  // namespace reprise::replay
