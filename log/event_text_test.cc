#include "log/event_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "log/sample_recording.h"

namespace reprise::log {
namespace {

const Position kPosition = {12, Ticks(345)};

TEST(EventText, LinesStandInColumns) {
  EXPECT_EQ(to_text({kPosition, Gain{Ticket(7), Right::kWrite, {{PageNumber(18), 3}, {PageNumber(19), 0}}}}),
            "        12            345  gain    ticket 7          write 0x12 v3, 0x13 v0");
  EXPECT_EQ(to_text({kPosition, Loss{Ticket(8), Right::kNone, {PageNumber(18), 4}}}),
            "        12            345  loss    ticket 8          none  0x12 v4");
  EXPECT_EQ(to_text({kPosition, Value{Source::kTime, 255}}), "        12            345  value   time 0xff");
  EXPECT_EQ(to_text({kPosition, ApicMessage{ApicMessageKind::kTimer, 0}}),
            "        12            345  message timer vector 0");
  EXPECT_EQ(to_text({kPosition, Digest{0xab}}),
            "        12            345  digest  registers 00000000000000ab");
  EXPECT_EQ(to_text({kPosition, End{0xab}}), "        12            345  end     registers 00000000000000ab");
  EXPECT_EQ(to_text({kPosition, MachineDigest{0xab}}),
            "        12            345  machine memory and devices 00000000000000ab");
  EXPECT_EQ(to_text({kPosition, Input{InputDevice::kConsole, "l\n"}}),
            "        12            345  input   console, 2 bytes \"l\\n\"");
  EXPECT_EQ(to_text({kPosition, Input{InputDevice::kIntervalTimer, {}}}),
            "        12            345  input   interval-timer, 0 bytes");
}

TEST(EventText, LongGainIsCutAfterEightPages) {
  Gain gain = {Ticket(7), Right::kRead, {}};
  gain.pages.resize(11);
  EXPECT_TRUE(to_text({kPosition, gain}).ends_with("0x0 v0, and 3 more"));
}

TEST(EventJson, EveryKindHasItsFields) {
  const auto json = [](const Event& event) { return to_json(event).dump(); };
  EXPECT_EQ(
      json({kPosition, Gain{Ticket(7), Right::kWrite, {{PageNumber(18), 3}}}}),
      R"({"kind":"gain","pages":[{"page":18,"version":3}],"right":"write","stops":12,"ticket":7,"ticks":345})");
  EXPECT_EQ(json({kPosition, Loss{Ticket(8), Right::kRead, {PageNumber(18), 4}}}),
            R"({"kind":"loss","left":"read","page":18,"stops":12,"ticket":8,"ticks":345,"version":4})");
  EXPECT_EQ(json({kPosition, Value{Source::kConsoleInput, 65}}),
            R"({"kind":"value","source":"console-input","stops":12,"ticks":345,"value":65})");
  EXPECT_EQ(json({kPosition, ApicMessage{ApicMessageKind::kStartup, 8}}),
            R"({"kind":"message","message":"startup","stops":12,"ticks":345,"vector":8})");
  EXPECT_EQ(json({kPosition, Digest{0xab}}),
            R"({"kind":"digest","registers":"00000000000000ab","stops":12,"ticks":345})");
  EXPECT_EQ(json({kPosition, End{0xab}}),
            R"({"kind":"end","registers":"00000000000000ab","stops":12,"ticks":345})");
  EXPECT_EQ(json({kPosition, MachineDigest{0xab}}),
            R"({"kind":"machine","machine":"00000000000000ab","stops":12,"ticks":345})");
  EXPECT_EQ(json({kPosition, Input{InputDevice::kConsole, "l\n"}}),
            R"({"bytes":"6c0a","device":"console","kind":"input","stops":12,"ticks":345})");
}

TEST(MessageJson, ManifestAndFinalHaveTheirSchemaNames) {
  const RecordingEditor sample = sample_recording(2, 1);
  const nlohmann::json manifest = to_json(sample.manifest);
  EXPECT_EQ(manifest["vcpus"], 2);
  EXPECT_EQ(manifest["image"]["file"], "image.elf");
  EXPECT_EQ(manifest["cpuid"][0]["eax"], 0x306a9);
  EXPECT_FALSE(manifest["settings"].contains("chaos_seed"));
  EXPECT_FALSE(manifest.contains("host"));
  const nlohmann::json final = to_json(*sample.final);
  EXPECT_EQ(final["reason"], "REASON_GUEST_EXIT");
  EXPECT_EQ(final["register_digests"].size(), 2u);
}

}  // namespace
}  // namespace reprise::log
