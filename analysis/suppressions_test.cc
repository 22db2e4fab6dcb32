#include "analysis/suppressions.h"

#include <gtest/gtest.h>

namespace reprise::analysis {
namespace {

Race race() {
  Race race;
  race.first.object = "table+0x10";
  race.first.stack = {{{"add", "racy.h", 27, true}, {"worker", "bank.cc", 30, false}},
                      {{"main", "main.cc", 9}}};
  race.second.stack = {{{"sum", "bank.cc", 50, false}}};
  return race;
}

bool covers(std::string_view text) {
  auto suppressions = Suppressions::parse(text);
  EXPECT_TRUE(suppressions) << text;
  return suppressions && suppressions->cover(race());
}

TEST(SuppressionsTest, FunctionFileOrObjectAnywhereIsCovered) {
  for (const char* line : {"race:worker", "race:main.cc", "race:sum", "race:table", "race:ork", "race:w*r"})
    EXPECT_TRUE(covers(line)) << line;
  EXPECT_FALSE(covers("race:nobody"));
}

TEST(SuppressionsTest, OnlyTheInnermostFunctionIsTheTop) {
  EXPECT_TRUE(covers("race_top:add"));
  EXPECT_TRUE(covers("race_top:sum"));
  EXPECT_FALSE(covers("race_top:worker"));
  EXPECT_FALSE(covers("race_top:table"));
}

TEST(SuppressionsTest, BeginningAndEndAreAnchored) {
  EXPECT_TRUE(covers("race:^worker$"));
  EXPECT_TRUE(covers("race:^wor"));
  EXPECT_FALSE(covers("race:^orker"));
  EXPECT_FALSE(covers("race:worke$"));
}

TEST(SuppressionsTest, CommentsAndEmptyLinesSayNothing) {
  EXPECT_FALSE(covers("# race:worker\n\n   \n"));
  EXPECT_TRUE(covers("# a comment\r\n  race:worker  \r\n"));
}

TEST(SuppressionsTest, RacesAreCountedByLine) {
  auto suppressions = *Suppressions::parse("race:nobody\nrace:worker");
  EXPECT_TRUE(suppressions.cover(race()));
  EXPECT_TRUE(suppressions.cover(race()));
  EXPECT_EQ(suppressions.lines()[0].races, 0u);
  EXPECT_EQ(suppressions.lines()[1].races, 2u);
}

TEST(SuppressionsTest, OtherLinesAreRefusedByNumber) {
  for (const char* text : {"race:ok\nthread:x", "race:ok\nrace:", "\nworker"}) {
    const auto refused = Suppressions::parse(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_NE(refused.error().message.find("line 2"), std::string::npos) << refused.error().message;
  }
}

}  // namespace
}  // namespace reprise::analysis
