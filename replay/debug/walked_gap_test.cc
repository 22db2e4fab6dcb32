#include "replay/debug/walked_gap.h"

#include <gtest/gtest.h>

namespace reprise::replay {
namespace {

Mark at(uint64_t steps, uint64_t stops = 5) {
  return {2, {stops, Ticks(0), steps}};
}

class WalkedGapTest : public testing::Test {
 protected:
  WalkedGapTest() {
    const std::vector<uint64_t> rips = {10, 11, 12, 11, 13};
    for (size_t i = 0; i < rips.size(); ++i) gap_.note(at(i), Gva(rips[i]));
  }
  [[nodiscard]] std::optional<Mark> last(uint64_t place, const Mark& begin, const Mark& end) const {
    return gap_.last_at({Gva(place)}, begin, end);
  }

  WalkedGap gap_;
};

TEST_F(WalkedGapTest, TheLastTimeIsFoundAndTheEndIsNotInIt) {
  EXPECT_EQ(last(11, at(0), at(5)), at(3));
  EXPECT_EQ(last(11, at(0), at(3)), at(1));
  EXPECT_EQ(last(10, at(0), at(1)), at(0));
  EXPECT_EQ(last(13, at(0), at(4)), std::nullopt);
}

TEST_F(WalkedGapTest, WhatIsBeforeTheBeginningIsNot) {
  EXPECT_EQ(last(11, at(2), at(3)), std::nullopt);
  EXPECT_EQ(last(12, at(2), at(5)), at(2));
  EXPECT_EQ(last(10, at(0, 4), at(5)), at(0));  // of the gap before
}

TEST_F(WalkedGapTest, CoversWhatWasNotedWithoutAHole) {
  EXPECT_TRUE(gap_.covers(at(5)));
  EXPECT_FALSE(gap_.covers(at(6)));
  EXPECT_FALSE(gap_.covers(at(1, 6)));
  gap_.note(at(7), Gva(1));
  EXPECT_FALSE(gap_.covers(at(6)));
}

TEST_F(WalkedGapTest, AnotherGapTakesItsPlace) {
  gap_.note(at(0, 6), Gva(1));
  EXPECT_FALSE(gap_.covers(at(1)));
  EXPECT_TRUE(gap_.covers(at(1, 6)));
}

TEST_F(WalkedGapTest, AWalkFromItsMiddleOnAddsToIt) {
  gap_.note(at(3), Gva(11));
  gap_.note(at(4), Gva(13));
  gap_.note(at(5), Gva(14));
  EXPECT_TRUE(gap_.covers(at(6)));
  EXPECT_EQ(last(14, at(0), at(6)), at(5));
}

}  // namespace
}  // namespace reprise::replay
