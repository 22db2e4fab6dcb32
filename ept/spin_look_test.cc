// A vCPU that spins, and when it is worth while to look.
#include "ept/spin_look.h"

#include <gtest/gtest.h>

namespace reprise::ept {
namespace {

constexpr uint64_t kUs = 1'000;

class SpinLookTest : public testing::Test {
 protected:
  SpinLookTest() { look_.begin(); }
  SpinLook look_;
};

TEST_F(SpinLookTest, RegistersThatComeRoundAreASpin) {
  EXPECT_FALSE(look_.note(Gva(1), 10));
  EXPECT_FALSE(look_.note(Gva(2), 20));
  EXPECT_TRUE(look_.note(Gva(1), 10));
  EXPECT_FALSE(look_.is_on());
}

TEST_F(SpinLookTest, OtherRegistersAtTheSamePlaceAreNone) {
  EXPECT_FALSE(look_.note(Gva(1), 10));
  EXPECT_FALSE(look_.note(Gva(1), 11));
  EXPECT_FALSE(look_.is_on()) << "it computes: more stops would show no more";
}

TEST_F(SpinLookTest, EndsWhereItDoesNotComeRound) {
  for (uint64_t place = 1; place <= 4; ++place) {
    ASSERT_TRUE(look_.is_on());
    EXPECT_FALSE(look_.note(Gva(place), place));
  }
  EXPECT_FALSE(look_.is_on());
}

// Looks at a vCPU that computes for `work_ns` and spins then, `turns` times; what it spun in the last one.
uint64_t spun_after(SpinForecast& forecast, uint64_t work_ns, int turns) {
  uint64_t spun = 0;
  for (int turn = 0; turn < turns; ++turn) {
    uint64_t at = forecast.first_look();
    if (at >= work_ns) forecast.spun_at_once();
    for (; at < work_ns; at = SpinForecast::next_look(at)) forecast.computed(at);
    spun = at - work_ns;
  }
  return spun;
}

TEST(SpinForecast, LearnsHowLongAVcpuComputes) {
  for (const uint64_t work : {40 * kUs, 300 * kUs, 3'000 * kUs}) {
    SpinForecast forecast;
    spun_after(forecast, work, 50);
    uint64_t late = 0;
    for (int turn = 0; turn < 100; ++turn) late += spun_after(forecast, work, 1);
    EXPECT_LT(late / 100, work / 2 + SpinForecast::kAnswer / 4) << work;
  }
}

TEST(SpinForecast, FollowsWhereItComputesLess) {
  SpinForecast forecast;
  spun_after(forecast, 8'000 * kUs, 100);
  EXPECT_GT(forecast.first_look(), 4'000 * kUs);
  spun_after(forecast, 100 * kUs, 30);
  EXPECT_LT(forecast.first_look(), 800 * kUs);
}

}  // namespace
}  // namespace reprise::ept
