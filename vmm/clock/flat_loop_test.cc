#include "vmm/clock/flat_loop.h"

#include <gtest/gtest.h>

namespace reprise::vmm {
namespace {

constexpr uint64_t kMs = 1'000'000;

TEST(FlatLoopWatch, SaysNothingOfProgramsThatStopSoon) {
  FlatLoopWatch watch;
  for (uint64_t ms = 0; ms < 1000; ++ms) {
    EXPECT_EQ(watch.kept(ms * kMs), std::nullopt);
    if (ms % 100 == 99) watch.left();
  }
}

TEST(FlatLoopWatch, KeepsTheLongest) {
  FlatLoopWatch watch;
  EXPECT_EQ(watch.kept(0), std::nullopt);
  EXPECT_EQ(watch.kept(500 * kMs), 500 * kMs);
  watch.set_longest({"/bin/first", Gva(0x1000), 500 * kMs});
  watch.left();
  EXPECT_EQ(watch.kept(1000 * kMs), std::nullopt);
  EXPECT_EQ(watch.kept(1400 * kMs), std::nullopt);  // shorter than the first one
  EXPECT_EQ(watch.kept(1600 * kMs), 600 * kMs);
}

}  // namespace
}  // namespace reprise::vmm
