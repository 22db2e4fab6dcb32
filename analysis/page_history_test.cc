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

// vCPUs 0 and 1 are merged by tickets 20 to 22: vCPU 1 executes alone, and may write to page 7 of vCPU 0.
TEST(MergedPageHistory, WhoIsAloneCanHaveWrittenToEveryPage) {
  log::TemporaryFolder folder;
  log::RecordingEditor editor = log::sample_prefix(2, 1);
  editor.manifest.set_mode("domains");
  const PageNumber turn(editor.manifest.memory_bytes() >> kPageShift);
  const auto at = [](uint64_t stops) { return Position{.stops = stops, .ticks = Ticks(0)}; };
  editor.logs[0] = {{at(1), log::Gain{Ticket(1), Right::kWrite, {{turn, 0}}}},
                    {at(2), log::Loss{Ticket(2), Right::kRead, {turn, 1}}},
                    {at(3), log::Gain{Ticket(4), Right::kWrite, {{PageNumber(7), 0}}}},
                    {at(4), log::Loss{Ticket(5), Right::kNone, {turn, 3}}}};
  editor.logs[1] = {{at(1), log::Gain{Ticket(3), Right::kRead, {{turn, 2}}}},
                    {at(2), log::Loss{Ticket(6), Right::kNone, {turn, 4}}},
                    {at(2), log::Gain{Ticket(7), Right::kWrite, {{turn, 5}}}}};
  ASSERT_TRUE(editor.save(folder / "merged"));
  const auto recording = log::Recording::open(folder / "merged");
  ASSERT_TRUE(recording);
  auto log = TransitionLog::open(*recording);
  ASSERT_TRUE(log);
  const auto writers = last_writers(*log, PageNumber(7), Ticket(8), 5);
  ASSERT_TRUE(writers);
  std::vector<std::pair<uint32_t, uint64_t>> found;
  for (const WriteTenure& tenure : *writers) found.emplace_back(tenure.vcpu.raw, tenure.begin.raw);
  EXPECT_EQ(found, (std::vector<std::pair<uint32_t, uint64_t>>{{1, 7}, {0, 4}, {0, 1}}));
  const auto now = holders(*log, PageNumber(7), Ticket(8));
  ASSERT_TRUE(now);
  ASSERT_EQ(now->size(), 2u);
  EXPECT_EQ((*now)[1].right, Right::kWrite);
}

}  // namespace
}  // namespace reprise::analysis
