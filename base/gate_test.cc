#include "base/gate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace reprise {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

steady_clock::time_point in(milliseconds time) {
  return steady_clock::now() + time;
}

// Counts, passing the gate each time, until it is told to end.
class Counter {
 public:
  explicit Counter(Gate& gate)
      : thread_([this, &gate] {
          const Gate::Member member(gate);
          while (!over_.load()) {
            gate.pass();
            ++count_;
          }
        }) {}
  ~Counter() {
    over_.store(true);
    thread_.join();
  }
  [[nodiscard]] uint64_t count() const { return count_.load(); }

 private:
  std::atomic<bool> over_{false};
  std::atomic<uint64_t> count_{0};
  std::thread thread_;
};

TEST(Gate, NoMemberMovesOnceAClosedGateSaysSo) {
  Gate gate;
  const Counter first(gate), second(gate);
  for (int round = 0; round < 200; ++round) {
    gate.close();
    ASSERT_TRUE(gate.wait_until_still(in(milliseconds(10'000))));
    const uint64_t before = first.count() + second.count();
    std::this_thread::yield();
    EXPECT_EQ(first.count() + second.count(), before);
    gate.open();
    while (first.count() + second.count() == before) std::this_thread::yield();
  }
}

TEST(Gate, WhoWaitsForSomethingStandsStillAndStaysBehindAClosedGate) {
  Gate gate;
  std::atomic<bool> waits{false}, happened{false}, went_on{false};
  std::thread waiting([&] {
    const Gate::Member member(gate);
    {
      const Gate::Waiting wait(&gate);
      waits.store(true);
      while (!happened.load()) std::this_thread::yield();
    }
    went_on.store(true);
  });
  while (!waits.load()) std::this_thread::yield();
  gate.close();
  EXPECT_TRUE(gate.wait_until_still(in(milliseconds(10'000))));
  happened.store(true);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(went_on.load());
  gate.open();
  waiting.join();
  EXPECT_TRUE(went_on.load());
}

TEST(Gate, AMemberThatDoesNotComeToTheGateIsReportedAtTheDeadline) {
  Gate gate;
  std::atomic<bool> moves{false}, over{false};
  std::thread moving([&] {
    const Gate::Member member(gate);
    moves.store(true);
    while (!over.load()) std::this_thread::yield();
  });
  while (!moves.load()) std::this_thread::yield();
  gate.close();
  EXPECT_FALSE(gate.wait_until_still(in(milliseconds(20))));
  over.store(true);
  EXPECT_TRUE(gate.wait_until_still(in(milliseconds(10'000))));
  moving.join();
}

TEST(Gate, WhoComesWhileItIsClosedBeginsWhenItOpens) {
  Gate gate;
  gate.close();
  std::atomic<bool> began{false};
  std::thread late([&] {
    const Gate::Member member(gate);
    began.store(true);
  });
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(began.load());
  gate.open();
  late.join();
  EXPECT_TRUE(began.load());
}

}  // namespace
}  // namespace reprise
