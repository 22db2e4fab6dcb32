// Each round of the sample is twelve tickets: pages 7 and 8 go from vCPU 0 to vCPU 1, and back in the next
// one.
#include "analysis/transfers.h"

#include <gtest/gtest.h>

#include "log/sample_recording.h"

namespace reprise::analysis {
namespace {

class TransfersTest : public testing::Test {
 protected:
  static log::Recording record(const log::TemporaryFolder& folder) {
    EXPECT_TRUE(log::sample_recording(2, 2).save(folder / "recording"));
    return *log::Recording::open(folder / "recording");
  }
  static uint64_t count_of(const std::vector<PairTransfers>& pairs, uint32_t from, uint32_t to) {
    for (const auto& pair : pairs)
      if (pair.from == VcpuId(from) && pair.to == VcpuId(to)) return pair.count;
    return 0;
  }

  log::TemporaryFolder folder_;
  log::Recording recording_ = record(folder_);
  TransitionLog log_ = *TransitionLog::open(recording_);
};

TEST_F(TransfersTest, AreCountedByPair) {
  const auto found = transfers(log_, Ticket(1), Ticket(25));
  ASSERT_TRUE(found);
  EXPECT_EQ(count_of(found->pairs, 0, 1), 4u);
  EXPECT_EQ(count_of(found->pairs, 1, 0), 3u);  // page 9 as well, which both lose before vCPU 0 gets it
  EXPECT_EQ(found->count, 7u);
}

TEST_F(TransfersTest, AreCountedByPageMostFirst) {
  const auto found = transfers(log_, Ticket(1), Ticket(25));
  ASSERT_TRUE(found && found->pages.size() == 3);
  EXPECT_EQ(found->pages[0].page, PageNumber(7));
  EXPECT_EQ(found->pages[0].count, 3u);
  EXPECT_EQ(count_of(found->pages[0].pairs, 0, 1), 2u);
  EXPECT_EQ(found->pages[2].page, PageNumber(9));
}

TEST_F(TransfersTest, WhatIsLostAndTakenBackIsNone) {
  const auto found = transfers(log_, Ticket(9), Ticket(13));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->count, 0u);
  EXPECT_TRUE(found->pages.empty());
}

TEST_F(TransfersTest, RangeIsKept) {
  EXPECT_EQ(transfers(log_, Ticket(1), Ticket(13))->count, 2u);
  EXPECT_EQ(transfers(log_, Ticket(1), Ticket(1))->count, 0u);
}

}  // namespace
}  // namespace reprise::analysis
