// What CREW allows: one writer, or readers.
#include "log/page_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::log {
namespace {

using testing::HasSubstr;

class PageHistoryTest : public testing::Test {
 protected:
  Status gain(uint32_t vcpu, Right right, uint32_t version) {
    return history_.apply(VcpuId(vcpu), Gain{Ticket(1), right, {{PageNumber(5), version}}}, known_);
  }
  Status lose(uint32_t vcpu, Right left, uint32_t version) {
    return history_.apply(VcpuId(vcpu), Loss{Ticket(1), left, {PageNumber(5), version}}, known_);
  }
  static void expect_broken(const Status& status, const std::string& what) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kDamaged);
    EXPECT_THAT(status.error().message, HasSubstr(what));
  }

  PageHistory history_;
  PageHistory::Known known_ = PageHistory::Known::kAll;
};

TEST_F(PageHistoryTest, ReadersShare) {
  EXPECT_TRUE(gain(0, Right::kRead, 0));
  EXPECT_TRUE(gain(1, Right::kRead, 1));
  EXPECT_TRUE(gain(31, Right::kRead, 2));
}

TEST_F(PageHistoryTest, ReaderMayBecomeTheWriterWhenAlone) {
  EXPECT_TRUE(gain(0, Right::kRead, 0));
  EXPECT_TRUE(gain(0, Right::kWrite, 1));
  EXPECT_TRUE(lose(0, Right::kRead, 2));
  EXPECT_TRUE(gain(1, Right::kRead, 3));
}

TEST_F(PageHistoryTest, TwoWritersAreRefused) {
  EXPECT_TRUE(gain(0, Right::kWrite, 0));
  expect_broken(gain(1, Right::kWrite, 1), "gains it while another writes it");
}

TEST_F(PageHistoryTest, ReaderBesideTheWriterIsRefused) {
  EXPECT_TRUE(gain(0, Right::kWrite, 0));
  expect_broken(gain(1, Right::kRead, 1), "gains it while another writes it");
}

TEST_F(PageHistoryTest, WriterBesideAReaderIsRefused) {
  EXPECT_TRUE(gain(0, Right::kRead, 0));
  expect_broken(gain(1, Right::kWrite, 1), "may write it while another reads it");
}

TEST_F(PageHistoryTest, GainOfWhatItHasIsRefused) {
  EXPECT_TRUE(gain(0, Right::kRead, 0));
  expect_broken(gain(0, Right::kRead, 1), "gains what it has");
}

TEST_F(PageHistoryTest, LossOfWhatItHasNotIsRefused) {
  expect_broken(lose(0, Right::kNone, 0), "loses what it has not");
}

TEST_F(PageHistoryTest, ReaderCannotLoseDownToReading) {
  EXPECT_TRUE(gain(0, Right::kRead, 0));
  expect_broken(lose(0, Right::kRead, 1), "loses what it has not");
}

TEST_F(PageHistoryTest, SkippedVersionIsRefused) {
  EXPECT_TRUE(gain(0, Right::kRead, 0));
  expect_broken(lose(0, Right::kNone, 2), "page 0x5: version 2, expected 1");
}

TEST_F(PageHistoryTest, NonsenseRightsAreRefused) {
  expect_broken(gain(0, Right::kNone, 0), "no right");
  expect_broken(lose(0, Right::kWrite, 0), "leaves the right to write");
  expect_broken(history_.apply(VcpuId(0), Gain{Ticket(1), Right::kRead, {}}, known_), "no page");
}

TEST_F(PageHistoryTest, SamePageTwiceInOneGainIsRefused) {
  const Gain gain = {Ticket(1), Right::kRead, {{PageNumber(5), 0}, {PageNumber(5), 1}}};
  expect_broken(history_.apply(VcpuId(0), gain, known_), "gains what it has");
}

TEST_F(PageHistoryTest, IncompleteHistoryNeedsOnlyRisingVersions) {
  known_ = PageHistory::Known::kSome;
  EXPECT_TRUE(gain(0, Right::kWrite, 3));
  EXPECT_TRUE(gain(1, Right::kWrite, 7));
  expect_broken(gain(2, Right::kRead, 7), "version 7, expected 8");
}

}  // namespace
}  // namespace reprise::log
