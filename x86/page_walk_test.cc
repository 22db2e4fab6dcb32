#include "x86/page_walk.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "x86/physical_reader_fake.h"

namespace reprise::x86 {
namespace {

constexpr uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kPs = 0x80;
constexpr uint64_t kNx = 1ull << 63;
constexpr uint64_t kAll = kP | kW | kU | kA;  // what a table entry normally holds
constexpr uint64_t kLeaf = kAll | kD;

constexpr LinearAccess kRead{};
constexpr LinearAccess kStore{.write = true};
constexpr LinearAccess kUserRead{.user = true};
constexpr LinearAccess kUserStore{.write = true, .user = true};
constexpr LinearAccess kFetch{.fetch = true};

// Four-level tables at pages 1 (root), 2, 3, 4 that map kAddress to page 0x77.
class PageWalkTest : public ::testing::Test {
 protected:
  // Index 1 at level 4, 2 at level 3, 3 at level 2, 4 at level 1.
  static constexpr uint64_t kAddress = 1ull << 39 | 2ull << 30 | 3ull << 21 | 4ull << 12 | 0x567;

  PageWalkTest() {
    state_.cr0 = kCr0Paging | kCr0ProtectionEnable | kCr0WriteProtect;
    state_.cr3 = 0x1000;
    state_.cr4 = kCr4PhysicalAddressExtension;
    state_.efer = kEferLongModeActive | kEferNoExecute;
    entry(4, 0x2000 | kAll);
    entry(3, 0x3000 | kAll);
    entry(2, 0x4000 | kAll);
    entry(1, 0x77000 | kLeaf);
  }

  // Sets the entry that kAddress uses at a level.
  void entry(int level, uint64_t value) {
    const uint64_t table = static_cast<uint64_t>(5 - level) << 12;
    memory_.write(table + static_cast<uint64_t>(5 - level) * 8, value);
  }

  PageWalk walk(LinearAccess access, bool walk_writes = false, uint64_t address = kAddress) {
    return walk_page(state_, memory_, Gva(address), access, walk_writes);
  }

  // "1r 2r 3r 4r" for the tables of a walk.
  static std::string tables(const PageWalk& walk) {
    std::string text;
    for (const PageRight& table : walk.tables())
      text += fmt::format("{}{:x}{}", text.empty() ? "" : " ", table.page.raw,
                          table.right == Right::kWrite ? 'w' : 'r');
    return text;
  }

  PagingState state_;
  FakePhysicalReader memory_;
};

TEST_F(PageWalkTest, AddressIsPhysicalWithPagingOff) {
  state_.cr0 = kCr0ProtectionEnable;
  const PageWalk result = walk(kStore);
  EXPECT_EQ(result.outcome, WalkOutcome::kMapped);
  EXPECT_EQ(result.gpa, Gpa(kAddress));
  EXPECT_EQ(tables(result), "");
}

TEST_F(PageWalkTest, FourLevelsVisitFourTables) {
  const PageWalk result = walk(kRead);
  EXPECT_EQ(result.outcome, WalkOutcome::kMapped);
  EXPECT_EQ(result.gpa, Gpa(0x77567));
  EXPECT_EQ(tables(result), "1r 2r 3r 4r");
}

TEST_F(PageWalkTest, TopOfAddressSpaceIsTranslatedByLastEntries) {
  memory_.write(0x1ff8, 0x2000 | kAll);
  memory_.write(0x2ff8, 0x3000 | kAll);
  memory_.write(0x3ff8, 0x4000 | kAll);
  memory_.write(0x4ff8, 0x88000 | kLeaf);
  EXPECT_EQ(walk(kRead, false, ~0ull).gpa, Gpa(0x88fff));
}

TEST_F(PageWalkTest, TwoMegabytePageEndsWalkAtThirdTable) {
  entry(2, 0x4000'0000 | kLeaf | kPs);
  const PageWalk result = walk(kRead);
  EXPECT_EQ(result.gpa, Gpa(0x4000'0000 + (kAddress & 0x1f'ffff)));
  EXPECT_EQ(tables(result), "1r 2r 3r");
}

TEST_F(PageWalkTest, OneGigabytePageEndsWalkAtSecondTable) {
  entry(3, 0x1'4000'0000 | kLeaf | kPs);
  const PageWalk result = walk(kRead);
  EXPECT_EQ(result.gpa, Gpa(0x1'4000'0000 + (kAddress & 0x3fff'ffff)));
  EXPECT_EQ(tables(result), "1r 2r");
}

TEST_F(PageWalkTest, LargePageIgnoresPatBitOfItsAddress) {
  entry(2, 0x4000'0000 | kLeaf | kPs | 1 << 12);
  EXPECT_EQ(walk(kRead).gpa, Gpa(0x4000'0000 + (kAddress & 0x1f'ffff)));
}

TEST_F(PageWalkTest, LargePageBitInRootIsReservedAndFaults) {
  entry(4, 0x2000 | kAll | kPs);
  EXPECT_EQ(walk(kRead).outcome, WalkOutcome::kPageFault);
}

TEST_F(PageWalkTest, NotPresentEntryFaultsAfterTheTablesReadSoFar) {
  for (int level = 4; level >= 1; --level) {
    entry(level, 0);
    const PageWalk result = walk(kRead);
    EXPECT_EQ(result.outcome, WalkOutcome::kPageFault) << level;
    EXPECT_EQ(result.table_count, 5 - level);
    entry(level, level == 1 ? 0x77000 | kLeaf : static_cast<uint64_t>(6 - level) << 12 | kAll);
  }
}

TEST_F(PageWalkTest, MissingAccessedBitNeedsWriteOnThatTableOnly) {
  entry(3, 0x3000 | (kAll & ~kA));
  EXPECT_EQ(tables(walk(kRead)), "1r 2w 3r 4r");
}

TEST_F(PageWalkTest, MissingDirtyBitNeedsWriteForAStoreOnly) {
  entry(1, 0x77000 | kAll);
  EXPECT_EQ(tables(walk(kRead)), "1r 2r 3r 4r");
  EXPECT_EQ(tables(walk(kStore)), "1r 2r 3r 4w");
}

TEST_F(PageWalkTest, DirtyBitOfLargePageIsInItsOwnEntry) {
  entry(2, 0x4000'0000 | kAll | kPs);
  EXPECT_EQ(tables(walk(kStore)), "1r 2r 3w");
}

TEST_F(PageWalkTest, WalkWritesNeedsWriteOnEveryTable) {
  EXPECT_EQ(tables(walk(kRead, true)), "1w 2w 3w 4w");
}

TEST_F(PageWalkTest, HiddenTableStopsWalkAndIsListed) {
  memory_.hide(3);
  const PageWalk result = walk(kRead);
  EXPECT_EQ(result.outcome, WalkOutcome::kUnreadable);
  EXPECT_EQ(tables(result), "1r 2r 3r");
}

TEST_F(PageWalkTest, TableOutsideRamStopsWalk) {
  entry(2, 0x000f'ffff'ffff'f000 | kAll);
  EXPECT_EQ(walk(kRead).outcome, WalkOutcome::kUnreadable);
}

TEST_F(PageWalkTest, SelfReferenceEndsAfterFourVisits) {
  memory_.write(0x1000 + 8 * 511, 0x1000 | kLeaf);
  const PageWalk result = walk(kRead, false, ~0ull);
  EXPECT_EQ(result.outcome, WalkOutcome::kMapped);
  EXPECT_EQ(result.gpa, Gpa(0x1fff));
  EXPECT_EQ(tables(result), "1r 1r 1r 1r");
}

TEST_F(PageWalkTest, UserBitIsNeededAtEveryLevelForUserAccess) {
  EXPECT_EQ(walk(kUserRead).outcome, WalkOutcome::kMapped);
  entry(3, 0x3000 | (kAll & ~kU));
  EXPECT_EQ(walk(kUserRead).outcome, WalkOutcome::kPageFault);
  EXPECT_EQ(walk(kRead).outcome, WalkOutcome::kMapped);
}

TEST_F(PageWalkTest, ReadOnlyPageFaultsForUserStore) {
  entry(1, 0x77000 | (kLeaf & ~kW));
  EXPECT_EQ(walk(kUserStore).outcome, WalkOutcome::kPageFault);
  EXPECT_EQ(walk(kUserRead).outcome, WalkOutcome::kMapped);
}

TEST_F(PageWalkTest, ReadOnlyPageFaultsForSupervisorStoreOnlyUnderWriteProtect) {
  entry(2, 0x4000 | (kAll & ~kW));
  EXPECT_EQ(walk(kStore).outcome, WalkOutcome::kPageFault);
  state_.cr0 &= ~kCr0WriteProtect;
  EXPECT_EQ(walk(kStore).outcome, WalkOutcome::kMapped);
}

TEST_F(PageWalkTest, NoExecuteFaultsForFetchOnlyWhenEnabled) {
  entry(1, 0x77000 | kLeaf | kNx);
  EXPECT_EQ(walk(kRead).outcome, WalkOutcome::kMapped);
  EXPECT_EQ(walk(kFetch).outcome, WalkOutcome::kPageFault);
  state_.efer &= ~kEferNoExecute;
  EXPECT_EQ(walk(kFetch).outcome, WalkOutcome::kMapped);
}

TEST_F(PageWalkTest, SmepStopsSupervisorFetchFromUserPage) {
  EXPECT_EQ(walk(kFetch).outcome, WalkOutcome::kMapped);
  state_.cr4 |= kCr4Smep;
  EXPECT_EQ(walk(kFetch).outcome, WalkOutcome::kPageFault);
}

TEST_F(PageWalkTest, SmapStopsSupervisorDataUnlessAlignmentCheckIsSet) {
  state_.cr4 |= kCr4Smap;
  EXPECT_EQ(walk(kRead).outcome, WalkOutcome::kPageFault);
  state_.alignment_check = true;
  EXPECT_EQ(walk(kRead).outcome, WalkOutcome::kMapped);
  EXPECT_EQ(walk({.implicit_system = true}).outcome, WalkOutcome::kPageFault);
}

TEST_F(PageWalkTest, FiveLevelsVisitFiveTables) {
  state_.cr4 |= kCr4FiveLevels;
  state_.cr3 = 0x9000;
  memory_.write(0x9000 + 8 * 7, 0x1000 | kAll);
  const PageWalk result = walk(kRead, false, 7ull << 48 | kAddress);
  EXPECT_EQ(result.gpa, Gpa(0x77567));
  EXPECT_EQ(tables(result), "9r 1r 2r 3r 4r");
}

TEST_F(PageWalkTest, PaeRootEntryHasNoAccessedBitAndNoPermissions) {
  state_.efer = 0;
  state_.cr3 = 0x6020;  // 32-byte aligned
  memory_.write(0x6020 + 8 * 3, 0x2000 | kP);
  memory_.write(0x2000, 0x3000 | kAll);
  memory_.write(0x3000 + 8 * 5, 0x1'0000'5000 | kLeaf);
  const PageWalk result = walk(kUserStore, false, 3u << 30 | 5 << 12 | 0x123);
  EXPECT_EQ(result.outcome, WalkOutcome::kMapped);
  EXPECT_EQ(result.gpa, Gpa(0x1'0000'5123));
  EXPECT_EQ(tables(result), "6r 2r 3r");
}

class PageWalk32Test : public PageWalkTest {
 protected:
  PageWalk32Test() {
    state_.efer = 0;
    state_.cr4 = 0;
    memory_.write(0x1000 + 4 * 2, 0x2000 | kAll, 4);
    memory_.write(0x2000 + 4 * 3, 0x77000 | kLeaf, 4);
  }
  static constexpr uint64_t kAddress32 = 2u << 22 | 3u << 12 | 0x321;
};

TEST_F(PageWalk32Test, TwoLevelsVisitTwoTables) {
  const PageWalk result = walk(kUserStore, false, kAddress32);
  EXPECT_EQ(result.gpa, Gpa(0x77321));
  EXPECT_EQ(tables(result), "1r 2r");
}

TEST_F(PageWalk32Test, FourMegabytePageNeedsPse) {
  memory_.write(0x1000 + 4 * 2, 0x0040'0000 | kLeaf | kPs | 3 << 13, 4);
  state_.cr4 = kCr4PageSizeExtensions;
  EXPECT_EQ(walk(kRead, false, kAddress32).gpa, Gpa(0x3'0040'3321));
  state_.cr4 = 0;
  EXPECT_EQ(tables(walk(kRead, false, kAddress32)), "1r 406r");
}

TEST_F(PageWalkTest, FindTableNamesAForeignTableOnAnyLevel) {
  for (uint64_t page = 1; page <= 4; ++page)
    EXPECT_EQ(find_table(state_, memory_, [&](PageNumber table) { return table.raw == page; }),
              PageNumber(page));
}

TEST_F(PageWalkTest, FindTableFindsNothingWhereOnlyDataIsForeign) {
  EXPECT_EQ(find_table(state_, memory_, [](PageNumber table) { return table.raw > 4; }), std::nullopt);
}

TEST_F(PageWalkTest, FindTableTakesALargePageForData) {
  entry(2, 0x400000 | kLeaf | kPs);
  EXPECT_EQ(find_table(state_, memory_, [](PageNumber table) { return table.raw > 3; }), std::nullopt);
}

TEST_F(PageWalkTest, FindTableLooksNowhereWithPagingOff) {
  state_.cr0 = kCr0ProtectionEnable;
  EXPECT_EQ(find_table(state_, memory_, [](PageNumber) { return true; }), std::nullopt);
}

TEST_F(PageWalkTest, FindTableEndsOnTablesThatReferToThemselves) {
  for (uint64_t i = 0; i < 512; ++i) memory_.write(0x1000 + i * 8, 0x1000 | kAll);
  uint64_t looks = 0;
  EXPECT_EQ(find_table(state_, memory_, [&](PageNumber) { return ++looks > 100; }), std::nullopt);
}

TEST_F(PageWalkTest, UserMemoryIsWhatUserModeMayWriteAndHas) {
  memory_.write(0x4000, 0x78000 | kAll);           // not written
  memory_.write(0x4008, 0x79000 | (kLeaf & ~kW));  // may not be
  memory_.write(0x4010, 0x7a000 | (kLeaf & ~kU));  // the kernel's
  memory_.write(0x3000, 0x400000 | kLeaf | kPs);
  memory_.write(0x1000 + 511 * 8, 0x2000 | kAll);  // the upper half
  std::vector<std::pair<uint64_t, uint64_t>> written;
  size_t entries = 0;
  visit_user_memory(
      state_, memory_, [&](uint64_t) { ++entries; },
      [&](Gpa start, uint64_t bytes) { written.emplace_back(start.raw, bytes); });
  EXPECT_EQ(written, (std::vector<std::pair<uint64_t, uint64_t>>{{0x400000, 2 << 20}, {0x77000, 4096}}));
  EXPECT_EQ(entries, 7u);
}

TEST_F(PageWalkTest, UserMemoryEndsOnTablesThatReferToThemselves) {
  for (uint64_t i = 0; i < 512; ++i) memory_.write(0x1000 + i * 8, 0x1000 | kLeaf);
  size_t entries = 0, pages = 0;
  visit_user_memory(
      state_, memory_, [&](uint64_t) { ++entries; }, [&](Gpa, uint64_t) { ++pages; });
  EXPECT_EQ(entries, 256u + 3 * 512);
  EXPECT_EQ(pages, 1u);
}

}  // namespace
}  // namespace reprise::x86
