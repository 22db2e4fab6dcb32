// Transitions by the index: the same as without it, and fewer blocks.
#include "analysis/transition_log.h"

#include <gtest/gtest.h>

#include "log/sample_recording.h"

namespace reprise::analysis {
namespace {

constexpr uint32_t kVcpus = 3;
constexpr uint32_t kRounds = 20'000;                                      // some dozens of blocks
constexpr uint64_t kTickets = kRounds * (kVcpus * 4ull + kVcpus * 2ull);  // log/sample_recording.cc, play()

log::TemporaryFolder* g_folder;

class TransitionLogTest : public testing::Test {
 protected:
  // One recording for all: it takes longer to make than to ask.
  static void SetUpTestSuite() {
    g_folder = new log::TemporaryFolder();
    ASSERT_TRUE(log::sample_recording(kVcpus, kRounds).save(*g_folder / "finished"));
    ASSERT_TRUE(log::sample_prefix(kVcpus, 10).save(*g_folder / "prefix"));
  }
  static void TearDownTestSuite() { delete g_folder; }

  explicit TransitionLogTest(const char* name = "finished")
      : recording_(*log::Recording::open(*g_folder / name)), log_(*TransitionLog::open(recording_)) {}

  log::Recording recording_;
  TransitionLog log_;
};

class PrefixTransitionLogTest : public TransitionLogTest {
 protected:
  PrefixTransitionLogTest() : TransitionLogTest("prefix") {}
};

TEST_F(TransitionLogTest, RangeHoldsEachTicketOnceInOrder) {
  ASSERT_GT(log_.blocks(), 20u);
  for (const uint64_t begin : {uint64_t{1}, kTickets / 3, kTickets - 7}) {
    const auto found = log_.between(Ticket(begin), Ticket(begin + 100));
    ASSERT_TRUE(found);
    ASSERT_EQ(found->size(), std::min<uint64_t>(100, kTickets + 1 - begin));
    for (size_t i = 0; i < found->size(); ++i) EXPECT_EQ((*found)[i].ticket(), Ticket(begin + i));
  }
}

TEST_F(TransitionLogTest, RangeReadsOnlyItsBlocks) {
  ASSERT_TRUE(log_.between(Ticket(kTickets / 2), Ticket(kTickets / 2 + 20)));
  EXPECT_LE(log_.blocks_read(), 2 * kVcpus);
}

TEST_F(TransitionLogTest, ForwardVisitsAllAndStopsWhenTold) {
  uint64_t seen = 0;
  ASSERT_TRUE(log_.forward(Ticket(1), Ticket(UINT64_MAX), [&](const Transition& transition) {
    EXPECT_EQ(transition.ticket(), Ticket(++seen));
    return true;
  }));
  EXPECT_EQ(seen, kTickets);
  EXPECT_LE(log_.blocks_read(), log_.blocks());
  ASSERT_TRUE(log_.forward(Ticket(1), Ticket(100), [&](const Transition&) { return ++seen < kTickets + 5; }));
  EXPECT_EQ(seen, kTickets + 5);
}

TEST_F(TransitionLogTest, BackwardVisitsThePagesOwnWithoutGap) {
  std::optional<uint32_t> version;
  ASSERT_TRUE(log_.backward(PageNumber(7), Ticket(UINT64_MAX), [&](const Transition& transition) {
    const log::PageStep* step = transition.step_of(PageNumber(7));
    EXPECT_NE(step, nullptr);
    if (step == nullptr) return false;
    EXPECT_EQ(step->version + 1, version.value_or(kRounds * kVcpus * 3));
    version = step->version;
    return true;
  }));
  EXPECT_EQ(version, 0u);
}

TEST_F(TransitionLogTest, BackwardReadsNoMoreThanWhatIsAskedFor) {
  ASSERT_TRUE(log_.backward(PageNumber(7), Ticket(UINT64_MAX), [](const Transition&) { return false; }));
  EXPECT_LE(log_.blocks_read(), 2 * kVcpus);
}

TEST_F(TransitionLogTest, PageThatNobodyHadIsLookedForOnlyOnce) {
  const auto none = [](const Transition&) {
    ADD_FAILURE() << "nobody had it";
    return true;
  };
  ASSERT_TRUE(log_.backward(PageNumber(1000), Ticket(UINT64_MAX), none));
  const uint64_t read = log_.blocks_read();
  EXPECT_LE(read, log_.blocks());
  ASSERT_TRUE(log_.backward(PageNumber(1000), Ticket(UINT64_MAX), none));
  EXPECT_EQ(log_.blocks_read(), read);
}

TEST_F(TransitionLogTest, LastTicketIsFoundAtTheEnd) {
  EXPECT_EQ(*log_.last(), Ticket(kTickets));
  EXPECT_LE(log_.blocks_read(), 2 * kVcpus);
}

TEST_F(TransitionLogTest, NearestAreAroundTheMomentAndTheLastOnesAtTheEnd) {
  const auto first_and_last = [&](uint64_t next, uint32_t count) {
    const auto found = nearest(log_, Ticket(next), count);
    EXPECT_TRUE(found && !found->empty());
    return std::pair(found->front().ticket().raw, found->back().ticket().raw);
  };
  EXPECT_EQ(first_and_last(1000, 20), std::pair(uint64_t{990}, uint64_t{1009}));
  EXPECT_EQ(first_and_last(1000, 1), std::pair(uint64_t{1000}, uint64_t{1000}));
  EXPECT_EQ(first_and_last(1, 20), std::pair(uint64_t{1}, uint64_t{20}));
  EXPECT_EQ(first_and_last(kTickets + 1 + kVcpus, 20), std::pair(kTickets - 19, kTickets));
  EXPECT_EQ(first_and_last(kTickets - 1, 20), std::pair(kTickets - 19, kTickets));
}

TEST_F(TransitionLogTest, EventsNearAPositionAreOfAllKinds) {
  const auto reader = recording_.open_log(VcpuId(1));
  ASSERT_TRUE(reader);
  log::VcpuLogReader& log = const_cast<log::VcpuLogReader&>(*reader);
  std::vector<log::Event> all;
  for (auto event = log.next(); event && event->has_value(); event = log.next()) all.push_back(**event);
  for (const size_t at : {size_t{0}, size_t{3}, all.size() / 2, all.size() - 1}) {
    const auto near = log_.near(VcpuId(1), all[at].position, 10);
    ASSERT_TRUE(near);
    const size_t begin = std::min(at < 5 ? 0 : at - 5, all.size() - 10);
    EXPECT_EQ(*near, std::vector<log::Event>(all.begin() + static_cast<ptrdiff_t>(begin),
                                             all.begin() + static_cast<ptrdiff_t>(begin) + 10))
        << at;
  }
}

TEST_F(PrefixTransitionLogTest, RecordingWithoutAnIndexIsAnsweredAsWell) {
  EXPECT_EQ(*log_.last(), Ticket(10ull * kVcpus * 6));
  EXPECT_EQ(log_.between(Ticket(5), Ticket(15))->size(), 10u);
}

}  // namespace
}  // namespace reprise::analysis
