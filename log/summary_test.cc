#include "log/summary.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "log/sample_recording.h"

namespace reprise::log {
namespace {

Result<Summary> summary_of(const RecordingEditor& sample, size_t top_pages) {
  const TemporaryFolder folder;
  TRY(sample.save(folder / "r"));
  TRY_ASSIGN(const Recording recording, Recording::open(folder / "r"));
  return summarize(recording, top_pages);
}

TEST(SummaryTest, CountsEventsByKindVcpuAndPage) {
  const auto summary = summary_of(sample_recording(2, 10), 2);
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_TRUE(summary->finished);
  EXPECT_EQ(summary->wall_nanoseconds, 2'000'000'000u);
  EXPECT_EQ(summary->events, 2u * (10 * 9 + 1));
  EXPECT_EQ(summary->transitions, 2u * 10 * 6);
  EXPECT_EQ(summary->pages, 3u);
  ASSERT_EQ(summary->kinds.size(), 11u);
  EXPECT_EQ(summary->kinds[0].kind, "gain");
  EXPECT_EQ(summary->kinds[0].events, 40u);
  EXPECT_EQ(summary->kinds[5].events, 2u);
  EXPECT_EQ(summary->kinds[6].kind, "spin");
  EXPECT_EQ(summary->kinds[6].events, 0u);
  EXPECT_EQ(summary->kinds[7].kind, "machine");
  EXPECT_EQ(summary->kinds[8].kind, "input");
  EXPECT_EQ(summary->kinds[9].kind, "breakpoint");
  EXPECT_EQ(summary->kinds[10].kind, "preemption");
  ASSERT_EQ(summary->vcpus.size(), 2u);
  EXPECT_EQ(summary->vcpus[1].events, 91u);
  EXPECT_EQ(summary->vcpus[1].blocks, 1u);
  ASSERT_EQ(summary->top_pages.size(), 2u);
  EXPECT_EQ(summary->top_pages[0].page, PageNumber(7));
  EXPECT_EQ(summary->top_pages[0].transitions, 60u);
}

TEST(SummaryTest, BytesOfKindsAddUpToTheRawBytesOverManyBlocks) {
  const auto summary = summary_of(sample_recording(1, 4000), 1);
  ASSERT_TRUE(summary);
  EXPECT_GT(summary->vcpus[0].blocks, 2u);
  const uint64_t sum =
      std::accumulate(summary->kinds.begin(), summary->kinds.end(), uint64_t(0),
                      [](uint64_t sum, const KindSummary& kind) { return sum + kind.bytes; });
  EXPECT_LE(sum, summary->raw_bytes);
  EXPECT_LE(summary->raw_bytes, sum + summary->vcpus[0].blocks * 13 * 4);
}

TEST(SummaryTest, PrefixHasNoDuration) {
  const auto summary = summary_of(sample_prefix(1, 3), 1);
  ASSERT_TRUE(summary);
  EXPECT_FALSE(summary->finished);
  EXPECT_FALSE(to_json(*summary).contains("events_per_second"));
}

TEST(SummaryTest, JsonHasRates) {
  const auto summary = summary_of(sample_recording(1, 10), 1);
  ASSERT_TRUE(summary);
  const nlohmann::json json = to_json(*summary);
  EXPECT_EQ(json["events_per_second"], 91 / 2.0);
  EXPECT_EQ(json["top_pages"][0]["page"], 7);
  EXPECT_EQ(json["kinds"].size(), 11u);
}

}  // namespace
}  // namespace reprise::log
