#include "analysis/false_sharing.h"

#include <gtest/gtest.h>

#include "analysis/trace_fake.h"

namespace reprise::analysis {
namespace {

constexpr uint64_t kPage = 0x5000;

TEST(FalseSharingTest, DisjointWritesOnAPageAreFound) {
  const FakeTrace trace = FakeTrace().read(0, kPage + 16).write(0, kPage).write(1, kPage + 64);
  const auto found = falsely_shared_pages(trace.items);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].page, PageNumber(5));
  ASSERT_EQ(found[0].parts.size(), 2u);
  EXPECT_EQ(found[0].parts[0].vcpu, VcpuId(0));
  EXPECT_EQ(found[0].parts[0].first, 0u);
  EXPECT_EQ(found[0].parts[0].last, 23u);
  EXPECT_EQ(found[0].parts[0].item, 1u);  // the write
  EXPECT_EQ(found[0].parts[1].first, 64u);
}

TEST(FalseSharingTest, ReaderOfOtherBytesCounts) {
  EXPECT_EQ(falsely_shared_pages(FakeTrace().write(0, kPage).read(1, kPage + 8).items).size(), 1u);
}

TEST(FalseSharingTest, PageWithACommonByteIsShared) {
  EXPECT_TRUE(falsely_shared_pages(FakeTrace().write(0, kPage).write(1, kPage + 64).read(1, kPage + 7).items)
                  .empty());
}

TEST(FalseSharingTest, PageThatNobodyWritesOrOnlyOneUsesIsNone) {
  EXPECT_TRUE(falsely_shared_pages(FakeTrace().read(0, kPage).read(1, kPage + 8).items).empty());
  EXPECT_TRUE(falsely_shared_pages(FakeTrace().write(0, kPage).read(0, kPage + 8).items).empty());
}

}  // namespace
}  // namespace reprise::analysis
