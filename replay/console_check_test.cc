// The console of a replay against the recorded one.
#include "replay/console_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "log/format.h"
#include "log/hash.h"
#include "log/sample_recording.h"

namespace reprise::replay {
namespace {

using testing::HasSubstr;

class ConsoleCheckTest : public testing::Test {
 protected:
  // What a replay that writes `written` comes to, where `recorded` was recorded.
  Status compare(const std::string& recorded, const std::string& written, bool finished = true) {
    TRY_ASSIGN(const auto recording, recorded_with(recorded, finished));
    TRY_ASSIGN(auto check, ConsoleCheck::create(recording));
    write(check, written);
    return check.finish(finished);
  }
  Result<log::Recording> recorded_with(const std::string& console, bool finished = true) {
    log::RecordingEditor sample = log::sample_recording(1, 1);
    sample.console = console;
    sample.final->set_console_bytes(console.size());
    sample.final->set_console_xxh3(log::xxh3_64(log::bytes_of(console)));
    const auto path = folder_ / std::to_string(number_++);
    TRY(sample.save(path));
    if (!finished) std::filesystem::remove(path / log::kFinalFile);
    return log::Recording::open(path);
  }
  static void write(ConsoleCheck& check, const std::string& text) {
    for (const char byte : text) check.write(static_cast<uint8_t>(byte));
  }

  // What a replay that goes back and forth comes to.
  Status compare_by(const std::string& recorded, const std::function<void(ConsoleCheck&)>& replay) {
    TRY_ASSIGN(const auto recording, recorded_with(recorded));
    TRY_ASSIGN(auto check, ConsoleCheck::create(recording));
    replay(check);
    return check.finish(true);
  }

  log::TemporaryFolder folder_;
  int number_ = 0;
};

TEST_F(ConsoleCheckTest, EqualBytesAgree) {
  EXPECT_TRUE(compare("", ""));
  EXPECT_TRUE(compare("sum 10\n", "sum 10\n"));
  const std::string long_text(300'000, 'x');
  EXPECT_TRUE(compare(long_text, long_text));
}

TEST_F(ConsoleCheckTest, FirstOtherByteIsNamed) {
  std::string text(300'000, 'x');
  const std::string recorded = text;
  text[200'000] = 'y';
  const Status compared = compare(recorded, text);
  ASSERT_FALSE(compared);
  EXPECT_EQ(compared.error().code, ErrorCode::kDivergence);
  EXPECT_THAT(compared.error().message,
              HasSubstr("from byte 200000 on (300000 bytes recorded, 300000 replayed)"));
}

TEST_F(ConsoleCheckTest, MoreOrLessThanRecordedIsADivergence) {
  EXPECT_THAT(compare("ab", "a").error().message, HasSubstr("from byte 1 on (2 bytes recorded, 1 replayed)"));
  EXPECT_THAT(compare("a", "ab").error().message, HasSubstr("from byte 1 on (1 bytes recorded, 2 replayed)"));
}

TEST_F(ConsoleCheckTest, ReplayThatGoesBackAndForthIsComparedFromWhereItIs) {
  EXPECT_TRUE(compare_by("one two", [](ConsoleCheck& check) {
    write(check, "one t");
    check.seek(2);
    EXPECT_EQ(check.written(), 2u);
    write(check, "e two");
  }));
  EXPECT_TRUE(compare_by("one two", [](ConsoleCheck& check) {
    check.seek(4);
    write(check, "two");
    check.seek(7);
  })) << "from a checkpoint that another session made";
  EXPECT_FALSE(compare_by("one two", [](ConsoleCheck& check) {
    check.seek(4);
    write(check, "too");
  }));
}

TEST_F(ConsoleCheckTest, DifferenceIsForgottenOnlyByGoingBackBeforeIt) {
  EXPECT_TRUE(compare_by("one two", [](ConsoleCheck& check) {
    write(check, "one x");
    check.seek(4);
    write(check, "two");
  }));
  EXPECT_FALSE(compare_by("one two", [](ConsoleCheck& check) {
    write(check, "one x");
    check.seek(5);
    write(check, "wo");
  }));
}

TEST_F(ConsoleCheckTest, AnotherWayIsOnlyCounted) {
  EXPECT_TRUE(compare_by("one two", [](ConsoleCheck& check) {
    write(check, "one ");
    for (int i = 0; i < 10; ++i) check.skip();
    EXPECT_EQ(check.written(), 14u);
    check.seek(4);
    write(check, "two");
  }));
}

TEST_F(ConsoleCheckTest, PrefixIsComparedAsFarAsBothGo) {
  EXPECT_TRUE(compare("ab", "a", false));
  EXPECT_TRUE(compare("a", "ab", false));
  EXPECT_FALSE(compare("ab", "ax", false));
}

TEST_F(ConsoleCheckTest, DamagedConsoleIsRefusedFirst) {
  log::RecordingEditor sample = log::sample_recording(1, 1);
  sample.console += "more";
  ASSERT_TRUE(sample.save(folder_ / "r"));
  const auto recording = log::Recording::open(folder_ / "r");
  ASSERT_TRUE(recording);
  const auto check = ConsoleCheck::create(*recording);
  ASSERT_FALSE(check);
  EXPECT_EQ(check.error().code, ErrorCode::kDamaged);
}

}  // namespace
}  // namespace reprise::replay
