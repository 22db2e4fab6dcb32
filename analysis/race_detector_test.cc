#include "analysis/race_detector.h"

#include <gtest/gtest.h>

#include "analysis/trace_fake.h"

namespace reprise::analysis {
namespace {

constexpr uint64_t kData = 0x5000, kOther = 0x5100, kLock = 0x6000, kFlag = 0x7000;

std::vector<RacingPair> races_of(const FakeTrace& trace) {
  return find_races(trace.items, 3);
}

void expect_none(const FakeTrace& trace) {
  EXPECT_TRUE(races_of(trace).empty());
}

void expect_one(const FakeTrace& trace, size_t first, size_t second) {
  const auto found = races_of(trace);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].first, first);
  EXPECT_EQ(found[0].second, second);
}

TEST(RaceDetectorTest, WriteRacesWithReadOfAnother) {
  expect_one(FakeTrace().write(0, kData).read(1, kData), 0, 1);
  expect_one(FakeTrace().read(0, kData).write(1, kData), 0, 1);
}

TEST(RaceDetectorTest, WritesRace) {
  expect_one(FakeTrace().write(0, kData).write(1, kData), 0, 1);
}

TEST(RaceDetectorTest, ReadsDoNotRace) {
  expect_none(FakeTrace().read(0, kData).read(1, kData));
}

TEST(RaceDetectorTest, OneVcpuDoesNotRaceWithItself) {
  expect_none(FakeTrace().write(0, kData).read(0, kData).write(0, kData));
}

TEST(RaceDetectorTest, OtherBytesDoNotRace) {
  expect_none(FakeTrace().write(0, kData).write(1, kData + 8));
}

TEST(RaceDetectorTest, OneByteInCommonRaces) {
  expect_one(FakeTrace().write(0, kData).read(1, kData + 7), 0, 1);
}

TEST(RaceDetectorTest, LockOrders) {
  // Unlocking is an ordinary store.
  expect_none(FakeTrace().atomic(0, kLock).write(0, kData).write(0, kLock).atomic(1, kLock).read(1, kData));
}

TEST(RaceDetectorTest, AnotherLockDoesNotOrder) {
  expect_one(FakeTrace()
                 .atomic(0, kLock)
                 .write(0, kData)
                 .write(0, kLock)
                 .atomic(1, kLock + 64)
                 .read(1, kData)
                 .write(1, kLock + 64),
             1, 4);
}

TEST(RaceDetectorTest, LockTakenBeforeTheOtherReleasedItDoesNotOrder) {
  expect_one(FakeTrace().atomic(1, kLock).atomic(0, kLock).write(0, kData).read(1, kData), 2, 3);
}

TEST(RaceDetectorTest, WaitingLoadOrdersBehindThePlainStoreThatItWaitsFor) {
  expect_none(FakeTrace().write(0, kData).write(0, kFlag).wait_for(1, kFlag).read(1, kData));
}

TEST(RaceDetectorTest, PlainLoadOfAPlainFlagOrdersNothing) {
  const auto found = races_of(FakeTrace().write(0, kData).write(0, kFlag).read(1, kFlag).read(1, kData));
  EXPECT_EQ(found.size(), 2u);
}

TEST(RaceDetectorTest, WordThatIsWaitedForLaterOrdersBefore) {
  // The ticket was there at once: only the load of another vCPU shows what the word is for.
  expect_none(FakeTrace().write(0, kData).write(0, kFlag).read(1, kFlag).read(1, kData).wait_for(2, kFlag));
}

TEST(RaceDetectorTest, OrderGoesOverThirds) {
  expect_none(FakeTrace()
                  .write(0, kData)
                  .atomic(0, kLock)
                  .atomic(1, kLock)
                  .atomic(1, kLock + 64)
                  .atomic(2, kLock + 64)
                  .read(2, kData));
}

TEST(RaceDetectorTest, WhatIsDoneAfterTheReleaseIsNotOrdered) {
  expect_one(FakeTrace().atomic(0, kLock).write(0, kData).atomic(1, kLock + 64).read(1, kData), 1, 3);
}

TEST(RaceDetectorTest, MessageOrders) {
  expect_none(FakeTrace().write(0, kData).send(0).receive(1).read(1, kData));
  expect_one(FakeTrace().send(0).write(0, kData).receive(1).read(1, kData), 1, 3);
}

TEST(RaceDetectorTest, UnseenPartMayHaveReleased) {
  // vCPU 1 reads an ordering word after it.
  expect_none(FakeTrace().write(0, kData).unseen(0).atomic(1, kLock).read(1, kData));
}

TEST(RaceDetectorTest, UnseenPartOrdersNothingForWhoReadsNoOrderingWord) {
  expect_one(FakeTrace().write(0, kData).unseen(0).read(1, kData), 0, 2);
}

TEST(RaceDetectorTest, UnseenPartMayHaveAcquiredWhatWasReleased) {
  expect_none(FakeTrace().write(0, kData).atomic(0, kLock).unseen(1).read(1, kData));
  expect_one(FakeTrace().atomic(0, kLock).write(0, kData).unseen(1).read(1, kData), 1, 3);
}

TEST(RaceDetectorTest, TheLastAccessesAreTheOnesThatAreReported) {
  expect_one(FakeTrace().write(0, kData).by(0x10).write(0, kData).by(0x20).read(1, kData), 1, 2);
}

TEST(RaceDetectorTest, PairsOfTheSameInstructionsAreCounted) {
  const auto found = races_of(FakeTrace()
                                  .write(0, kData)
                                  .by(0x10)
                                  .read(1, kData)
                                  .by(0x20)
                                  .write(0, kOther)
                                  .by(0x10)
                                  .read(1, kOther)
                                  .by(0x20));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].count, 2u);
  EXPECT_EQ(found[0].second, 1u);
}

TEST(RaceDetectorTest, AtomicsDoNotRaceWithEachOther) {
  expect_none(FakeTrace().atomic(0, kData).atomic(1, kData).read(2, kData).write(0, kData));
}

TEST(RaceDetectorTest, BytesBesideAnOrderingWordRace) {
  expect_one(FakeTrace().atomic(0, kLock).bytes(4).write(1, kLock + 4).bytes(4).read(2, kLock + 4).bytes(4),
             1, 2);
}

}  // namespace
}  // namespace reprise::analysis
