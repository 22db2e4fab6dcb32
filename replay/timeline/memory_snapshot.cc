#include "replay/timeline/memory_snapshot.h"

#include <algorithm>
#include <cstring>

namespace reprise::replay {

namespace {

std::span<const uint8_t> page_of_ram(const vmm::GuestMemory& memory, PageNumber number) {
  return memory.ram().subspan(address_of(number).raw, kPageSize);
}

bool are_equal(const MemorySnapshot::Page& page, std::span<const uint8_t> bytes) {
  return std::memcmp(page.data(), bytes.data(), kPageSize) == 0;
}

}  // namespace

Result<MemorySnapshot> MemorySnapshot::take(const vmm::GuestMemory& memory, const MemorySnapshot* before,
                                            const KnownMemory& known) {
  if (known.then == nullptr) return take_all(memory, before);
  MemorySnapshot snapshot;
  snapshot.pages_ = known.then->pages_;
  for (PageNumber number; number.raw < memory.pages(); ++number) {
    if (!known.written[number.raw]) continue;
    const auto bytes = page_of_ram(memory, number);
    const auto& then = snapshot.pages_[number.raw];
    if (then == nullptr || !are_equal(*then, bytes)) snapshot.note(number, bytes, before);
  }
  return snapshot;
}

Result<MemorySnapshot> MemorySnapshot::take_all(const vmm::GuestMemory& memory,
                                                const MemorySnapshot* before) {
  MemorySnapshot snapshot(memory.pages());
  TRY(memory.for_each_page(
      [&](PageNumber number, std::span<const uint8_t> bytes) { snapshot.note(number, bytes, before); }));
  return snapshot;
}

void MemorySnapshot::note(PageNumber number, std::span<const uint8_t> bytes, const MemorySnapshot* before) {
  const Page* const old = before == nullptr ? nullptr : before->pages_[number.raw].get();
  // Most are as they were: that is looked at first.
  if (old != nullptr && are_equal(*old, bytes))
    pages_[number.raw] = before->pages_[number.raw];
  else if (vmm::is_zeros(bytes))
    pages_[number.raw] = nullptr;
  else
    add(number, bytes);
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

void MemorySnapshot::visit(StateVisitor& visitor) {
  uint64_t pages = pages_.size();
  std::vector<uint64_t> numbers;
  std::string bytes;
  for (size_t number = 0; number < pages_.size(); ++number) {
    if (pages_[number] == nullptr) continue;
    numbers.push_back(number);
    bytes.append(reinterpret_cast<const char*>(pages_[number]->data()), kPageSize);
  }
  visitor("pages", pages);
  visitor("numbers", numbers);
  visitor("bytes", bytes);
  const bool fits = pages == pages_.size() && bytes.size() == numbers.size() * kPageSize &&
                    std::ranges::adjacent_find(numbers, std::greater_equal()) == numbers.end() &&
                    (numbers.empty() || numbers.back() < pages);
  visitor.require(fits, "bytes");
  if (!fits) return;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const std::span from(reinterpret_cast<const uint8_t*>(bytes.data()) + i * kPageSize, kPageSize);
    if (pages_[numbers[i]] == nullptr || !are_equal(*pages_[numbers[i]], from))
      add(PageNumber(numbers[i]), from);
  }
}

void MemorySnapshot::add_pages(std::unordered_set<const Page*>& pages) const {
  for (const auto& page : pages_)
    if (page != nullptr) pages.insert(page.get());
}

Status MemorySnapshot::put_back(const vmm::GuestMemory& memory, const KnownMemory& known) const {
  if (known.then == nullptr) return put_back_all(memory);
  for (PageNumber number; number.raw < memory.pages(); ++number)
    if (known.written[number.raw] || known.then->pages_[number.raw] != pages_[number.raw])
      put_back_page(memory, number, page_of_ram(memory, number));
  return {};
}

Status MemorySnapshot::put_back_all(const vmm::GuestMemory& memory) const {
  PageNumber next;  // pages below are as they should be
  const auto fill_to = [&](PageNumber end) {
    for (; next < end; ++next)
      if (pages_[next.raw] != nullptr) put_back_page(memory, next, page_of_ram(memory, next));
  };
  TRY(memory.for_each_page([&](PageNumber number, std::span<const uint8_t> bytes) {
    fill_to(number);
    put_back_page(memory, number, bytes);
    next = number + 1;
  }));
  fill_to(PageNumber(pages_.size()));
  return {};
}

void MemorySnapshot::put_back_page(const vmm::GuestMemory& memory, PageNumber number,
                                   std::span<const uint8_t> now) const {
  const auto& wanted = pages_[number.raw];
  if (wanted != nullptr ? are_equal(*wanted, now) : vmm::is_zeros(now)) return;
  const auto page = memory.writable(address_of(number), kPageSize);
  if (wanted != nullptr)
    std::ranges::copy(*wanted, page.begin());
  else
    std::ranges::fill(page, uint8_t{0});
}

}  // namespace reprise::replay
