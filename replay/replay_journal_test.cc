// What a replay makes of a log in which somebody changed what pages a vCPU got.
#include "replay/replay_journal.h"

#include <gtest/gtest.h>

#include "log/recording_reader.h"
#include "log/sample_recording.h"

namespace reprise::replay {
namespace {

constexpr uint64_t kPages = 64;
constexpr Position kAt{.stops = 1, .ticks = Ticks(0)};

class MapperFake final : public ept::PageMapper {
 public:
  Status set(PageNumber /*first*/, uint64_t /*count*/, Right /*from*/, Right /*to*/) override { return {}; }
};

class ReplayJournalTest : public ::testing::Test {
 protected:
  using Transition = std::variant<log::Gain, log::Loss>;
  // Asks for `needed`, and then for `then`, where the log has these transitions.
  Result<vmm::Acquired> ask(std::vector<Transition> transitions, std::vector<PageRight> needed,
                            const std::vector<PageRight>& then = {}) {
    log::RecordingEditor editor = log::sample_prefix(1, 1);
    editor.logs[0].clear();
    uint64_t ticket = 0;
    for (Transition& transition : transitions)
      std::visit(
          [&](auto& what) {
            what.ticket = Ticket(++ticket);
            editor.logs[0].push_back({kAt, what});
          },
          transition);
    editor.logs[0].push_back({{.stops = 2, .ticks = Ticks(0)}, log::Digest{0}});
    EXPECT_TRUE(editor.save(folder_ / "forged").has_value());
    auto recording = log::Recording::open(folder_ / "forged");
    EXPECT_TRUE(recording.has_value());
    auto log = recording->open_log(VcpuId(0));
    EXPECT_TRUE(log.has_value());
    ReplayJournal journal(VcpuId(0), std::move(*log), order_, nullptr, view_, 0);
    journal.arrive(kAt);
    auto answer = journal.acquire(needed, false);
    return !answer || then.empty() ? answer : journal.acquire(then, false);
  }
  static void expect_divergence(const Result<vmm::Acquired>& answer) {
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().code, ErrorCode::kDivergence);
    EXPECT_NE(answer.error().message.find("was given something else"), std::string::npos)
        << answer.error().message;
  }

  log::TemporaryFolder folder_;
  PageOrder order_{kPages + 1, 1};
  ept::View view_{kPages, 1, std::make_unique<MapperFake>()};
};

log::Gain gain(Right right, std::vector<log::PageStep> pages) {
  return {Ticket(0), right, std::move(pages)};
}

TEST_F(ReplayJournalTest, GainOfWhatIsNeededIsTaken) {
  const auto answer = ask({gain(Right::kWrite, {{PageNumber(3), 0}})}, {{PageNumber(3), Right::kWrite}});
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(*answer, vmm::Acquired::kGranted);
}

TEST_F(ReplayJournalTest, GainsOfWhatIsNeededMayBeSeveral) {
  const auto answer =
      ask({gain(Right::kWrite, {{PageNumber(3), 0}}), gain(Right::kRead, {{PageNumber(4), 0}})},
          {{PageNumber(3), Right::kWrite}, {PageNumber(4), Right::kRead}});
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
}

TEST_F(ReplayJournalTest, ReadingBeforeWritingIsChaosAndNoForgery) {
  const auto answer = ask({gain(Right::kRead, {{PageNumber(3), 0}})}, {{PageNumber(3), Right::kWrite}});
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
}

TEST_F(ReplayJournalTest, GainOfAnotherPageIsADivergence) {
  expect_divergence(ask({gain(Right::kWrite, {{PageNumber(4), 0}})}, {{PageNumber(3), Right::kWrite}}));
}

TEST_F(ReplayJournalTest, GainThatLacksAPageIsADivergence) {
  expect_divergence(ask({gain(Right::kWrite, {{PageNumber(3), 0}})},
                        {{PageNumber(3), Right::kWrite}, {PageNumber(5), Right::kWrite}}));
}

TEST_F(ReplayJournalTest, GainOfTooLittleIsADivergence) {
  const PageNumber page(3);
  ASSERT_TRUE(view_.grant({&page, 1}, Right::kRead).has_value());
  expect_divergence(ask({gain(Right::kRead, {{page, 0}})}, {{page, Right::kWrite}}));
}

log::Loss loss(PageNumber page, uint32_t version) {
  return {Ticket(0), Right::kNone, {page, version}};
}

TEST_F(ReplayJournalTest, TurnThatIsLostAtAFaultAndHadAloneThenGrantsAllPages) {
  const PageNumber turn = view_.turn();
  ASSERT_TRUE(view_.grant({&turn, 1}, Right::kRead).has_value());
  const auto answer =
      ask({loss(turn, 0), gain(Right::kWrite, {{turn, 1}})}, {{PageNumber(3), Right::kWrite}});
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(*answer, vmm::Acquired::kGranted);
  EXPECT_TRUE(view_.is_alone());
}

TEST_F(ReplayJournalTest, PageThatIsLostWhileTheTurnIsWaitedForIsGainedAgain) {
  const PageNumber turn = view_.turn();
  const PageNumber page(3);
  ASSERT_TRUE(view_.grant({&turn, 1}, Right::kRead).has_value());
  const auto answer = ask({loss(turn, 0), gain(Right::kWrite, {{page, 0}}), loss(page, 1),
                           gain(Right::kRead, {{turn, 1}}), gain(Right::kWrite, {{page, 2}})},
                          {{page, Right::kWrite}}, {{turn, Right::kRead}});
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(view_.right(page), Right::kWrite);
  EXPECT_EQ(view_.right(turn), Right::kRead);
}

// The instruction that asked for the page has been completed in between: its position is that of the loss.
TEST_F(ReplayJournalTest, WhatIsLostBehindTheAnswerIsKeptUntilThen) {
  const PageNumber page(3);
  const auto answer = ask({gain(Right::kRead, {{page, 0}}), loss(page, 1)}, {{page, Right::kRead}});
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(view_.right(page), Right::kRead);
}

TEST_F(ReplayJournalTest, TurnSharedAgainWithoutThePageIsADivergence) {
  const PageNumber turn = view_.turn();
  ASSERT_TRUE(view_.grant({&turn, 1}, Right::kRead).has_value());
  expect_divergence(ask({loss(turn, 0), gain(Right::kRead, {{turn, 1}})}, {{PageNumber(3), Right::kWrite}}));
}

}  // namespace
}  // namespace reprise::replay
