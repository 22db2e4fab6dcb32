// Who waits for whom in a replay, and when waiting is hopeless.
#include "replay/page_order.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

namespace reprise::replay {
namespace {

using Wait = PageOrder::Wait;

log::PageStep step(uint64_t page, uint32_t version) {
  return {PageNumber(page), version};
}

// Long enough that a thread is asleep, not only looking, when it is over; no test fails if it is not.
void give_time_to_sleep() {
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

class PageOrderTest : public testing::Test {
 protected:
  Wait wait(PageOrder& order, log::PageStep step) { return order.wait_for(std::array{step}); }
};

TEST_F(PageOrderTest, FirstTransitionWaitsForNothing) {
  PageOrder order(2, 1);
  EXPECT_EQ(wait(order, step(0, 0)), Wait::kReady);
  EXPECT_EQ(wait(order, step(1, 0)), Wait::kReady);
}

TEST_F(PageOrderTest, GainWaitsUntilThePageHasHadAllEarlierTransitions) {
  PageOrder order(1, 2);
  std::atomic<bool> passed{false};
  std::thread waiter([&] {
    EXPECT_EQ(wait(order, step(0, 2)), Wait::kReady);
    passed = true;
  });
  EXPECT_TRUE(order.advance(step(0, 0), Ticket(1), true));
  give_time_to_sleep();
  EXPECT_FALSE(passed);
  EXPECT_TRUE(order.advance(step(0, 1), Ticket(2), false));
  waiter.join();
  EXPECT_EQ(order.version(PageNumber(0)), 2u);
}

TEST_F(PageOrderTest, StepOfSeveralPagesWaitsForAll) {
  PageOrder order(2, 2);
  std::atomic<bool> passed{false};
  std::thread waiter([&] {
    EXPECT_EQ(order.wait_for(std::array{step(0, 1), step(1, 1)}), Wait::kReady);
    passed = true;
  });
  EXPECT_TRUE(order.advance(step(1, 0), Ticket(1), true));
  give_time_to_sleep();
  EXPECT_FALSE(passed);
  EXPECT_TRUE(order.advance(step(0, 0), Ticket(2), true));
  waiter.join();
}

TEST_F(PageOrderTest, ReadersMayComeInAnyOrder) {
  PageOrder order(1, 2);
  EXPECT_TRUE(order.advance(step(0, 0), Ticket(1), true));
  EXPECT_TRUE(order.advance(step(0, 2), Ticket(9), false));
  EXPECT_TRUE(order.advance(step(0, 1), Ticket(5), false));
  EXPECT_EQ(order.version(PageNumber(0)), 3u);
}

TEST_F(PageOrderTest, TransitionBeforeTheLastWriterIsRefused) {
  PageOrder order(2, 2);
  EXPECT_TRUE(order.advance(step(0, 0), Ticket(7), true));
  EXPECT_FALSE(order.advance(step(0, 1), Ticket(6), false));
  EXPECT_FALSE(order.advance(step(0, 1), Ticket(7), true));
  EXPECT_TRUE(order.advance(step(1, 0), Ticket(6), true));
}

TEST_F(PageOrderTest, OnlyVcpuThatWaitsIsStuck) {
  PageOrder order(1, 1);
  EXPECT_EQ(wait(order, step(0, 1)), Wait::kStuck);
}

TEST_F(PageOrderTest, VcpusThatWaitForEachOtherAreStuck) {
  PageOrder order(2, 2);
  std::thread other([&] { EXPECT_EQ(wait(order, step(0, 1)), Wait::kStuck); });
  EXPECT_EQ(wait(order, step(1, 1)), Wait::kStuck);
  other.join();
}

TEST_F(PageOrderTest, SleeperIsStuckWhenTheLastOtherFinishes) {
  PageOrder order(1, 2);
  std::thread sleeper([&] { EXPECT_EQ(wait(order, step(0, 1)), Wait::kStuck); });
  give_time_to_sleep();
  order.finish();
  sleeper.join();
}

TEST_F(PageOrderTest, SleeperIsNotStuckWhenTheLastOtherFinishesAfterItsTransition) {
  for (int i = 0; i < 200; ++i) {
    PageOrder order(1, 2);
    std::thread sleeper([&] { EXPECT_EQ(wait(order, step(0, 1)), Wait::kReady); });
    if (i % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    EXPECT_TRUE(order.advance(step(0, 0), Ticket(1), true));
    order.finish();
    sleeper.join();
  }
}

// Each hands over to the other and goes to sleep at once: the other was notified, but may not have run yet.
// That all sleep does not mean that all wait in vain.
TEST_F(PageOrderTest, SleeperThatWasNotifiedButHasNotRunIsNotStuck) {
  constexpr uint32_t kRounds = 5000;
  PageOrder order(2, 2);
  std::thread other([&] {
    for (uint32_t i = 0; i < kRounds; ++i) {
      ASSERT_EQ(wait(order, step(0, i + 1)), Wait::kReady);
      ASSERT_TRUE(order.advance(step(1, i), Ticket(2 * i + 2), true));
    }
    order.finish();
  });
  for (uint32_t i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(order.advance(step(0, i), Ticket(2 * i + 1), true));
    ASSERT_EQ(wait(order, step(1, i + 1)), Wait::kReady);
  }
  order.finish();
  other.join();
}

// As above, without luck: both sleepers are due, and the third goes to sleep before they can have looked.
TEST_F(PageOrderTest, SeveralSleepersThatAreDueKeepTheLastFromBeingStuck) {
  for (int i = 0; i < 100; ++i) {
    PageOrder order(3, 3);
    std::thread first([&] {
      EXPECT_EQ(wait(order, step(0, 1)), Wait::kReady);
      EXPECT_TRUE(order.advance(step(1, 0), Ticket(2), true));
      order.finish();
    });
    std::thread second([&] {
      EXPECT_EQ(wait(order, step(1, 1)), Wait::kReady);
      EXPECT_TRUE(order.advance(step(2, 0), Ticket(3), true));
      order.finish();
    });
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    EXPECT_TRUE(order.advance(step(0, 0), Ticket(1), true));
    EXPECT_EQ(wait(order, step(2, 1)), Wait::kReady);
    order.finish();
    first.join();
    second.join();
  }
}

TEST_F(PageOrderTest, AbortWakesSleepersAndFailsLaterWaits) {
  PageOrder order(1, 3);
  std::thread sleeper([&] { EXPECT_EQ(wait(order, step(0, 1)), Wait::kAborted); });
  give_time_to_sleep();
  order.abort();
  sleeper.join();
  EXPECT_TRUE(order.aborted());
  EXPECT_EQ(wait(order, step(0, 1)), Wait::kAborted);
}

TEST_F(PageOrderTest, SumOfTicketsDependsOnTheSetAndNotOnTheOrder) {
  PageOrder one(1, 1);
  PageOrder other(1, 1);
  for (const uint64_t ticket : {1, 2, 3}) one.count(Ticket(ticket));
  for (const uint64_t ticket : {3, 1, 2}) other.count(Ticket(ticket));
  EXPECT_EQ(one.ticket_sum(), other.ticket_sum());
  other.count(Ticket(4));
  EXPECT_NE(one.ticket_sum(), other.ticket_sum());
}

}  // namespace
}  // namespace reprise::replay
