// Which mapping calls a change of rights costs, and which pages it leaves alone.
#include "ept/view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace reprise::ept {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Call {
  uint64_t first;
  uint64_t count;
  Right from;
  Right to;
  bool operator==(const Call&) const = default;
};

class FakeMapper : public PageMapper {
 public:
  FakeMapper(std::vector<Call>& calls, const bool& fails, const std::set<uint64_t>& lost)
      : calls_(calls), fails_(fails), lost_(lost) {}
  [[nodiscard]] bool is_lost(PageNumber page) const override { return lost_.contains(page.raw); }
  Status set(PageNumber first, uint64_t count, Right from, Right to) override {
    if (fails_) return fail(ErrorCode::kHost, "no memory");
    calls_.push_back({first.raw, count, from, to});
    return {};
  }

 private:
  std::vector<Call>& calls_;
  const bool& fails_;
  const std::set<uint64_t>& lost_;
};

class ViewTest : public testing::Test {
 protected:
  Status grant(std::initializer_list<uint64_t> pages, Right right) {
    std::vector<PageNumber> numbers;
    for (const uint64_t page : pages) numbers.emplace_back(page);
    calls_.clear();
    return view_.grant(numbers, right);
  }

  std::vector<Call> calls_;
  bool fails_ = false;
  std::set<uint64_t> lost_;
  View view_{8, 2, std::make_unique<FakeMapper>(calls_, fails_, lost_)};
};

TEST_F(ViewTest, NeighboursAreGrantedInOneCall) {
  ASSERT_TRUE(grant({1, 2, 3, 5}, Right::kWrite));
  EXPECT_THAT(calls_,
              ElementsAre(Call{1, 3, Right::kNone, Right::kWrite}, Call{5, 1, Right::kNone, Right::kWrite}));
}

TEST_F(ViewTest, NeighboursThatChangeFromDifferentRightsAreGrantedApart) {
  ASSERT_TRUE(grant({2}, Right::kRead));
  ASSERT_TRUE(grant({1, 2, 3}, Right::kWrite));
  EXPECT_THAT(calls_,
              ElementsAre(Call{1, 1, Right::kNone, Right::kWrite}, Call{2, 1, Right::kRead, Right::kWrite},
                          Call{3, 1, Right::kNone, Right::kWrite}));
}

TEST_F(ViewTest, GrantOfWhatIsThereCallsNothing) {
  ASSERT_TRUE(grant({4}, Right::kWrite));
  ASSERT_TRUE(grant({4}, Right::kRead));
  EXPECT_THAT(calls_, IsEmpty());
  EXPECT_EQ(view_.right(PageNumber(4)), Right::kWrite);
}

TEST_F(ViewTest, TokenBesideTheLastPageHasARightAndNoMapping) {
  ASSERT_TRUE(grant({7, 8, 9}, Right::kWrite));
  EXPECT_THAT(calls_, ElementsAre(Call{7, 1, Right::kNone, Right::kWrite}));
  EXPECT_TRUE(view_.allows(PageNumber(8), Right::kWrite));
  EXPECT_TRUE(view_.allows(PageNumber(9), Right::kWrite));
  calls_.clear();
  ASSERT_TRUE(view_.revoke(PageNumber(8), Right::kNone));
  EXPECT_THAT(calls_, IsEmpty());
  EXPECT_EQ(view_.right(PageNumber(8)), Right::kNone);
}

TEST_F(ViewTest, RevokeMayLeaveReading) {
  ASSERT_TRUE(grant({3}, Right::kWrite));
  calls_.clear();
  ASSERT_TRUE(view_.revoke(PageNumber(3), Right::kRead));
  EXPECT_THAT(calls_, ElementsAre(Call{3, 1, Right::kWrite, Right::kRead}));
  EXPECT_EQ(view_.right(PageNumber(3)), Right::kRead);
}

TEST_F(ViewTest, ExemptPageIsWritableAndNeverMapped) {
  view_.exempt(PageNumber(2));
  EXPECT_EQ(view_.right(PageNumber(2)), Right::kWrite);
  ASSERT_TRUE(grant({1, 2, 3}, Right::kWrite));
  EXPECT_THAT(calls_,
              ElementsAre(Call{1, 1, Right::kNone, Right::kWrite}, Call{3, 1, Right::kNone, Right::kWrite}));
  calls_.clear();
  ASSERT_TRUE(view_.refresh(PageNumber(2)));
  EXPECT_THAT(calls_, IsEmpty());
  EXPECT_TRUE(view_.is_exempt(PageNumber(2)));
}

TEST_F(ViewTest, PageIsLostOnlyIfItIsGrantedAndTheHostTookItAway) {
  ASSERT_TRUE(grant({1, 2, 8}, Right::kRead));
  lost_ = {1, 3, 8};
  EXPECT_TRUE(view_.is_lost(PageNumber(1)));
  EXPECT_FALSE(view_.is_lost(PageNumber(2))) << "is mapped";
  EXPECT_FALSE(view_.is_lost(PageNumber(3))) << "is not granted";
  EXPECT_FALSE(view_.is_lost(PageNumber(8))) << "is a token";
  ASSERT_TRUE(view_.restrict(PageNumber(1), Right::kNone));
  EXPECT_FALSE(view_.is_lost(PageNumber(1))) << "a debugger watches it";
}

TEST_F(ViewTest, RefreshMapsTheSameRightAgain) {
  ASSERT_TRUE(grant({6}, Right::kRead));
  calls_.clear();
  ASSERT_TRUE(view_.refresh(PageNumber(6)));
  EXPECT_THAT(calls_,
              ElementsAre(Call{6, 1, Right::kRead, Right::kNone}, Call{6, 1, Right::kNone, Right::kRead}));
}

TEST_F(ViewTest, FailedMappingChangesNoRight) {
  fails_ = true;
  EXPECT_FALSE(grant({6}, Right::kRead));
  EXPECT_EQ(view_.right(PageNumber(6)), Right::kNone);
}

TEST_F(ViewTest, PageThatIsNotThereHasNoRight) {
  EXPECT_EQ(view_.right(PageNumber(10)), Right::kNone);
}

TEST(UnprotectedView, AllowsAllRamAndNoToken) {
  View view(4, 1, nullptr, Right::kWrite);
  EXPECT_TRUE(view.allows(PageNumber(3), Right::kWrite));
  EXPECT_EQ(view.right(PageNumber(4)), Right::kNone);
}

TEST_F(ViewTest, WhatWasWritableIsRememberedAfterItIsLost) {
  const auto taken = [&] {
    std::vector<uint64_t> pages;
    EXPECT_TRUE(view_.take_writable([&](PageNumber page) { pages.push_back(page.raw); }));
    return pages;
  };
  view_.exempt(PageNumber(1));
  ASSERT_TRUE(grant({1, 2, 3, 8}, Right::kWrite));
  ASSERT_TRUE(grant({4}, Right::kRead));
  ASSERT_TRUE(view_.revoke(PageNumber(2), Right::kNone));
  EXPECT_THAT(taken(), ElementsAre(2, 3));
  EXPECT_THAT(taken(), ElementsAre(3));  // still
  ASSERT_TRUE(view_.revoke(PageNumber(3), Right::kRead));
  EXPECT_THAT(taken(), ElementsAre(3));
  EXPECT_THAT(taken(), IsEmpty());
  std::vector<uint8_t> rights(view_.rights().begin(), view_.rights().end());
  rights[5] = static_cast<uint8_t>(Right::kWrite);
  ASSERT_TRUE(view_.restore(rights));
  rights[5] = static_cast<uint8_t>(Right::kNone);
  ASSERT_TRUE(view_.restore(rights));
  EXPECT_THAT(taken(), ElementsAre(5));
}

TEST_F(ViewTest, ARestrictedPageKeepsItsRight) {
  ASSERT_TRUE(grant({2}, Right::kWrite));
  calls_.clear();
  ASSERT_TRUE(view_.restrict(PageNumber(2), Right::kRead));
  EXPECT_THAT(calls_, ElementsAre(Call{2, 1, Right::kWrite, Right::kRead}));
  EXPECT_TRUE(view_.allows(PageNumber(2), Right::kWrite));
  calls_.clear();
  ASSERT_TRUE(view_.reveal(PageNumber(2)));
  EXPECT_THAT(calls_, ElementsAre(Call{2, 1, Right::kRead, Right::kWrite}));
}

TEST_F(ViewTest, WhatIsGrantedToARestrictedPageIsMappedWhenItIsRevealed) {
  ASSERT_TRUE(view_.restrict(PageNumber(2), Right::kNone));
  ASSERT_TRUE(grant({1, 2, 3}, Right::kWrite));
  EXPECT_THAT(calls_,
              ElementsAre(Call{1, 1, Right::kNone, Right::kWrite}, Call{3, 1, Right::kNone, Right::kWrite}));
  calls_.clear();
  ASSERT_TRUE(view_.revoke(PageNumber(2), Right::kRead));
  EXPECT_THAT(calls_, IsEmpty());
  ASSERT_TRUE(view_.reveal(PageNumber(2)));
  EXPECT_THAT(calls_, ElementsAre(Call{2, 1, Right::kNone, Right::kRead}));
}

// The turn is page 8.
TEST_F(ViewTest, WhoIsAloneMayUseEverything) {
  ASSERT_TRUE(grant({8}, Right::kRead));
  EXPECT_FALSE(view_.allows(PageNumber(3), Right::kRead));
  ASSERT_TRUE(grant({8}, Right::kWrite));
  EXPECT_TRUE(view_.allows(PageNumber(3), Right::kWrite));
  EXPECT_TRUE(view_.allows(PageNumber(9), Right::kWrite)) << "a device";
  EXPECT_EQ(view_.right(PageNumber(3)), Right::kNone);
  EXPECT_FALSE(view_.allows(PageNumber(10), Right::kRead)) << "is not there";
}

TEST_F(ViewTest, BorrowedPagesAreMappedTogetherAndGivenBackBesideOthers) {
  view_.exempt(PageNumber(6));
  ASSERT_TRUE(grant({1}, Right::kRead));
  ASSERT_TRUE(grant({8}, Right::kWrite));
  calls_.clear();
  ASSERT_TRUE(view_.refresh(PageNumber(3)));
  EXPECT_THAT(calls_, ElementsAre(Call{2, 4, Right::kNone, Right::kWrite}));
  calls_.clear();
  ASSERT_TRUE(view_.refresh(PageNumber(1)));
  EXPECT_THAT(calls_, ElementsAre(Call{1, 1, Right::kRead, Right::kWrite}));
  calls_.clear();
  ASSERT_TRUE(view_.revoke(PageNumber(8), Right::kNone));
  EXPECT_THAT(calls_, IsEmpty()) << "it executes nothing now";
  ASSERT_TRUE(grant({8}, Right::kRead));
  EXPECT_THAT(calls_,
              ElementsAre(Call{2, 4, Right::kWrite, Right::kNone}, Call{1, 1, Right::kWrite, Right::kRead}));
  EXPECT_EQ(view_.right(PageNumber(1)), Right::kRead);
}

TEST_F(ViewTest, BorrowedPageThatIsGainedIsKept) {
  ASSERT_TRUE(grant({8}, Right::kWrite));
  ASSERT_TRUE(view_.refresh(PageNumber(0)));
  calls_.clear();
  ASSERT_TRUE(grant({2}, Right::kWrite));
  EXPECT_THAT(calls_, IsEmpty()) << "it is mapped already";
  ASSERT_TRUE(view_.revoke(PageNumber(8), Right::kRead));
  EXPECT_THAT(calls_,
              ElementsAre(Call{0, 2, Right::kWrite, Right::kNone}, Call{3, 5, Right::kWrite, Right::kNone}));
}

TEST_F(ViewTest, BorrowedPageThatIsLostStaysMappedUntilOthersExecute) {
  ASSERT_TRUE(grant({2}, Right::kWrite));
  ASSERT_TRUE(grant({8}, Right::kWrite));
  ASSERT_TRUE(view_.revoke(PageNumber(2), Right::kNone));
  ASSERT_TRUE(view_.prepare(PageNumber(2)));
  calls_.clear();
  ASSERT_TRUE(view_.prepare(PageNumber(2)));
  EXPECT_THAT(calls_, IsEmpty());
  EXPECT_TRUE(view_.allows(PageNumber(2), Right::kWrite));
}

TEST_F(ViewTest, WhatIsBorrowedCountsAsWrittenOnce) {
  ASSERT_TRUE(grant({8}, Right::kWrite));
  view_.exempt(PageNumber(5));
  ASSERT_TRUE(view_.refresh(PageNumber(6)));
  std::vector<uint64_t> pages;
  ASSERT_TRUE(view_.take_writable([&](PageNumber page) { pages.push_back(page.raw); }));
  EXPECT_THAT(pages, ElementsAre(6, 7));
  pages.clear();
  ASSERT_TRUE(view_.take_writable([&](PageNumber page) { pages.push_back(page.raw); }));
  EXPECT_THAT(pages, IsEmpty());
}

TEST_F(ViewTest, DebuggersRestrictionHoldsForWhatIsBorrowed) {
  ASSERT_TRUE(grant({8}, Right::kWrite));
  ASSERT_TRUE(view_.restrict(PageNumber(3), Right::kRead));
  calls_.clear();
  ASSERT_TRUE(view_.refresh(PageNumber(3)));
  EXPECT_THAT(calls_, testing::Contains(Call{3, 1, Right::kNone, Right::kRead}));
  EXPECT_THAT(calls_, testing::Not(testing::Contains(Call{3, 1, Right::kNone, Right::kWrite})));
  calls_.clear();
  ASSERT_TRUE(view_.reveal(PageNumber(3)));
  EXPECT_THAT(calls_, ElementsAre(Call{3, 1, Right::kRead, Right::kWrite}));
}

}  // namespace
}  // namespace reprise::ept
