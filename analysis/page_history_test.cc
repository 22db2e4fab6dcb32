// Page 7 is written by both vCPUs in turns, page 9 read by both: tickets 1 to 12 are the first round.
#include "analysis/page_history.h"

#include <gtest/gtest.h>

#include "log/sample_recording.h"

namespace reprise::analysis {
namespace {

class PageHistoryTest : public testing::Test {
 protected:
  static log::Recording record(const log::TemporaryFolder& folder) {
    EXPECT_TRUE(log::sample_recording(2, 3).save(folder / "recording"));
    return *log::Recording::open(folder / "recording");
  }
  std::vector<std::pair<uint32_t, Right>> holders_of(uint64_t page, uint64_t before) {
    std::vector<std::pair<uint32_t, Right>> found;
    const auto holders = analysis::holders(log_, PageNumber(page), Ticket(before));
    EXPECT_TRUE(holders);
    for (const Holder& holder : *holders) found.emplace_back(holder.vcpu.raw, holder.right);
    return found;
  }
  using Holders = std::vector<std::pair<uint32_t, Right>>;

  log::TemporaryFolder folder_;
  log::Recording recording_ = record(folder_);
  TransitionLog log_ = *TransitionLog::open(recording_);
};

TEST_F(PageHistoryTest, HistoryHasAllUpToTheMoment) {
  const auto history = page_history(log_, PageNumber(7), Ticket(13), 100);
  ASSERT_TRUE(history);
  EXPECT_EQ(history->earlier, 0u);
  std::vector<uint64_t> tickets;
  for (const auto& transition : history->transitions) tickets.push_back(transition.ticket().raw);
  EXPECT_EQ(tickets, (std::vector<uint64_t>{1, 2, 3, 5, 6, 7}));
}

TEST_F(PageHistoryTest, BoundedHistorySaysHowManyWereEarlier) {
  const auto history = page_history(log_, PageNumber(7), Ticket(13), 2);
  ASSERT_TRUE(history);
  ASSERT_EQ(history->transitions.size(), 2u);
  EXPECT_EQ(history->transitions[0].ticket(), Ticket(6));
  EXPECT_EQ(history->earlier, 4u);
}

TEST_F(PageHistoryTest, HistoryOfAPageThatNobodyHadIsEmpty) {
  EXPECT_TRUE(page_history(log_, PageNumber(3), Ticket(1000), 100)->transitions.empty());
  EXPECT_TRUE(page_history(log_, PageNumber(7), Ticket(1), 100)->transitions.empty());
}

TEST_F(PageHistoryTest, HoldersAreThoseOfThatMoment) {
  EXPECT_EQ(holders_of(7, 1), Holders());
  EXPECT_EQ(holders_of(7, 2), Holders({{0, Right::kWrite}}));
  EXPECT_EQ(holders_of(7, 3), Holders({{0, Right::kRead}}));
  EXPECT_EQ(holders_of(7, 4), Holders());
  EXPECT_EQ(holders_of(7, 6), Holders({{1, Right::kWrite}}));
  EXPECT_EQ(holders_of(9, 11), Holders({{0, Right::kRead}, {1, Right::kRead}}));
  EXPECT_EQ(holders_of(9, 12), Holders({{1, Right::kRead}}));
}

TEST_F(PageHistoryTest, LastWritersAreTheLatestFirst) {
  const auto writers = last_writers(log_, PageNumber(7), Ticket(13), 10);
  ASSERT_TRUE(writers);
  ASSERT_EQ(writers->size(), 2u);
  EXPECT_EQ((*writers)[0].vcpu, VcpuId(1));
  EXPECT_EQ((*writers)[0].begin, Ticket(5));
  EXPECT_EQ((*writers)[0].end, Ticket(6));
  EXPECT_EQ((*writers)[1].vcpu, VcpuId(0));
  EXPECT_EQ((*writers)[1].end, Ticket(2));
}

TEST_F(PageHistoryTest, WriterThatStillHasThePageHasNoEnd) {
  const auto writers = last_writers(log_, PageNumber(7), Ticket(6), 1);
  ASSERT_TRUE(writers && writers->size() == 1);
  EXPECT_EQ((*writers)[0].vcpu, VcpuId(1));
  EXPECT_FALSE((*writers)[0].end.has_value());
}

TEST_F(PageHistoryTest, ReadersAreNoWriters) {
  EXPECT_TRUE(last_writers(log_, PageNumber(9), Ticket(1000), 10)->empty());
}

}  // namespace
}  // namespace reprise::analysis
