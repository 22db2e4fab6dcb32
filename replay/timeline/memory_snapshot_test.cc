// Snapshots by what is known are those of all that is there.
#include "replay/timeline/memory_snapshot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace reprise::replay {
namespace {

constexpr uint64_t kPages = 64;

class MemorySnapshotTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    auto memory = vmm::GuestMemory::create({.bytes = kPages * kPageSize}, GetParam());
    ASSERT_TRUE(memory);
    memory_ = *std::move(memory);
  }

  void write(uint64_t page, uint8_t value) {
    std::ranges::fill(memory_->writable(address_of(PageNumber(page)), kPageSize), value);
  }
  std::vector<uint8_t> ram() { return {memory_->ram().begin(), memory_->ram().end()}; }
  MemorySnapshot take(const MemorySnapshot* before, const MemorySnapshot* then) {
    auto snapshot = MemorySnapshot::take(*memory_, before, {then, memory_->written().take()});
    EXPECT_TRUE(snapshot);
    return *std::move(snapshot);
  }
  void put_back(const MemorySnapshot& snapshot, const MemorySnapshot* then) {
    EXPECT_TRUE(snapshot.put_back(*memory_, {then, memory_->written().take()}));
  }
  static size_t pages(const MemorySnapshot& snapshot) {
    std::unordered_set<const MemorySnapshot::Page*> found;
    snapshot.add_pages(found);
    return found.size();
  }

  std::unique_ptr<vmm::GuestMemory> memory_;
};

TEST_P(MemorySnapshotTest, PagesOfZerosAreNotKept) {
  write(3, 1);
  write(5, 0);
  const auto all = take(nullptr, nullptr);
  EXPECT_EQ(pages(all), 1u);
  write(3, 0);
  write(4, 2);
  const auto next = take(&all, &all);
  EXPECT_EQ(pages(next), 1u);
  EXPECT_EQ(next.own_pages(), 1u);
}

TEST_P(MemorySnapshotTest, WhatIsAsBeforeIsShared) {
  write(3, 1);
  write(4, 1);
  const auto first = take(nullptr, nullptr);
  write(3, 2);
  const auto second = take(&first, &first);
  EXPECT_EQ(second.own_pages(), 1u);
  write(3, 1);  // as in the first
  EXPECT_EQ(take(&first, &second).own_pages(), 0u);
}

// As a timeline goes to and fro: of whatever it knows, memory must come out as it was.
TEST_P(MemorySnapshotTest, AnyOrderOfSnapshotsGivesBackAllMemory) {
  std::mt19937_64 random(1);
  struct Kept {
    MemorySnapshot snapshot;
    std::vector<uint8_t> ram;
  };
  std::vector<std::unique_ptr<Kept>> kept;
  const MemorySnapshot* known = nullptr;
  for (int round = 0; round < 300; ++round) {
    for (uint64_t writes = random() % 6; writes > 0; --writes)
      write(random() % kPages, static_cast<uint8_t>(random() % 3));
    if (kept.empty() || random() % 2 == 0) {
      const MemorySnapshot* const before =
          kept.empty() || random() % 3 == 0 ? nullptr : &kept[random() % kept.size()]->snapshot;
      kept.push_back(std::make_unique<Kept>(Kept{take(before, random() % 8 == 0 ? nullptr : known), ram()}));
      known = &kept.back()->snapshot;
    } else {
      const Kept& back = *kept[random() % kept.size()];
      put_back(back.snapshot, random() % 8 == 0 ? nullptr : known);
      ASSERT_EQ(ram(), back.ram) << "round " << round;
      known = &back.snapshot;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(SmallAndHugePages, MemorySnapshotTest, testing::Bool());

}  // namespace
}  // namespace reprise::replay
