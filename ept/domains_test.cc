// When vCPUs are split and merged, by a clock that the test moves.
#include "ept/domains.h"

#include <gtest/gtest.h>

namespace reprise::ept {
namespace {

constexpr uint64_t kMs = 1'000'000;

// Both vCPUs are of this thread; each is given what both have got of the processor.
uint64_t processor_ns = 0;

class DomainsTest : public testing::Test {
 protected:
  DomainsTest() {
    processor_ns = 0;
    for (const VcpuId vcpu : {VcpuId(0), VcpuId(1)}) domains_.enter(vcpu, Activity::kWaiting, now_);
  }
  void split() { ASSERT_EQ(domains_.wanted(VcpuId(1), true, borrow_ns_, now_), Right::kRead); }
  // For `ns`, vCPU 0 executes without end, vCPU 1 for `part` of the time, and works for the rest.
  Domains::Verdict run(uint64_t ns, double part) {
    const auto executed = static_cast<uint64_t>(static_cast<double>(ns) * part);
    domains_.enter(VcpuId(0), Activity::kExecuting, now_);
    domains_.enter(VcpuId(1), Activity::kExecuting, now_);
    domains_.enter(VcpuId(1), Activity::kWorking, now_ + executed);
    now_ += ns;
    processor_ns += ns;
    return domains_.judge(now_);
  }
  // Both wait for so much of the time that one alone would have come further.
  Domains::Verdict share(uint64_t ns) {
    for (const VcpuId vcpu : {VcpuId(0), VcpuId(1)}) {
      domains_.enter(vcpu, Activity::kExecuting, now_);
      domains_.enter(vcpu, Activity::kWaiting, now_ + ns / 3);
    }
    now_ += ns;
    processor_ns += ns / 3;
    return domains_.judge(now_);
  }

  // While the vCPUs share().
  int windows_until_merged() {
    for (int windows = 1; windows < 100; ++windows) {
      share(2 * kMs);
      if (std::holds_alternative<Domains::Merge>(share(kMs))) return windows;
    }
    return 100;
  }

  uint64_t now_ = 1'000 * kMs;
  uint64_t borrow_ns_ = 0;
  Domains domains_{2, [](clockid_t) { return processor_ns; }};
};

TEST_F(DomainsTest, OneVcpuStaysAlone) {
  EXPECT_EQ(domains_.wanted(VcpuId(1), false, 0, now_), Right::kWrite);
  EXPECT_EQ(domains_.wanted(VcpuId(1), false, 0, now_ + 1'000 * kMs), Right::kWrite);
}

TEST_F(DomainsTest, SecondVcpuWithSomethingToDoSplits) {
  EXPECT_EQ(domains_.wanted(VcpuId(1), true, borrow_ns_, now_), Right::kRead);
  EXPECT_FALSE(domains_.merged());
}

TEST_F(DomainsTest, VcpusThatExecuteMoreThanOneStaySplit) {
  split();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(std::holds_alternative<Domains::Stay>(run(3 * kMs, 1)));
  EXPECT_FALSE(domains_.merged());
}

TEST_F(DomainsTest, NothingIsJudgedBeforeTheWindowIsOver) {
  split();
  EXPECT_TRUE(std::holds_alternative<Domains::Stay>(share(kMs)));
}

TEST_F(DomainsTest, VcpusThatExecuteLessThanOneAreMerged) {
  split();
  EXPECT_TRUE(std::holds_alternative<Domains::Look>(share(2 * kMs)));
  EXPECT_TRUE(std::holds_alternative<Domains::Stay>(share(kMs))) << "once may be chance";
  EXPECT_LE(windows_until_merged(), 3);
  EXPECT_EQ(domains_.wanted(VcpuId(1), true, borrow_ns_, now_), Right::kWrite);
}

TEST_F(DomainsTest, OneSlowWindowNowAndThenDoesNotMerge) {
  split();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(std::holds_alternative<Domains::Look>(share(2 * kMs)));
    EXPECT_TRUE(std::holds_alternative<Domains::Stay>(share(kMs)));
    EXPECT_TRUE(std::holds_alternative<Domains::Stay>(run(3 * kMs, 1)));
  }
}

TEST_F(DomainsTest, EachAttemptThatFailsDoublesTheTimeUntilTheNext) {
  uint64_t last = 0;
  for (int attempt = 0; attempt < 6; ++attempt) {
    split();
    windows_until_merged();
    const uint64_t merged = now_;
    while (domains_.wanted(VcpuId(1), true, borrow_ns_, now_) == Right::kWrite) now_ += kMs;
    const uint64_t waited = now_ - merged;
    // The first ones are longer: what an attempt costs is bounded, too.
    EXPECT_TRUE(waited >= last && (attempt < 5 || (waited >= 2 * last - kMs && waited <= 2 * last + kMs)))
        << waited;
    last = waited;
  }
}

TEST_F(DomainsTest, TimeUntilTheNextAttemptGrowsWithWhatIsBorrowedAgain) {
  split();
  const uint64_t begin = now_;
  windows_until_merged();
  borrow_ns_ = 30 * kMs;
  while (domains_.wanted(VcpuId(1), true, borrow_ns_, now_) == Right::kWrite) now_ += kMs;
  EXPECT_GE(now_ - begin, 600 * kMs);
}

TEST_F(DomainsTest, VcpusAreLookedAtWhereTheyWaitForPages) {
  split();
  const auto verdict = run(3 * kMs, 0.5);
  ASSERT_TRUE(std::holds_alternative<Domains::Look>(verdict));
  EXPECT_EQ(std::get<Domains::Look>(verdict).vcpus, 3U);
  EXPECT_TRUE(domains_.take_look(VcpuId(0)));
  EXPECT_FALSE(domains_.take_look(VcpuId(0)));
  EXPECT_TRUE(domains_.take_look(VcpuId(1)));
  EXPECT_TRUE(std::holds_alternative<Domains::Stay>(run(kMs, 0.5))) << "none spins";
}

TEST_F(DomainsTest, WhatAVcpuThatSpinsExecutesDoesNotCount) {
  split();
  bool merged = false;
  for (int window = 0; window < 5 && !merged; ++window) {
    ASSERT_TRUE(std::holds_alternative<Domains::Look>(run(3 * kMs, 0.5)));
    domains_.note_spin(VcpuId(0));
    merged = std::holds_alternative<Domains::Merge>(run(kMs, 0.5));
  }
  EXPECT_TRUE(merged);
}

}  // namespace
}  // namespace reprise::ept
