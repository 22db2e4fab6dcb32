// What `reprise verify` finds: one test for each kind of tampering. The forged recordings have valid sums.
#include "log/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "log/format.h"
#include "log/sample_recording.h"
#include "log/sealed_file.h"
#include "log/ticket_of.h"

namespace reprise::log {
namespace {

using testing::HasSubstr;

class VerifyTest : public testing::Test {
 protected:
  Result<Verified> verify() {
    const std::filesystem::path path = folder_ / fmt::format("r{}", saved_++);
    TRY(sample_.save(path));
    TRY_ASSIGN(const Recording recording, Recording::open(path));
    return verify_recording(recording);
  }

  void expect_damage(const std::string& what) {
    const auto verified = verify();
    ASSERT_FALSE(verified);
    EXPECT_EQ(verified.error().code, ErrorCode::kDamaged);
    EXPECT_THAT(verified.error().message, HasSubstr(what));
  }

  // The n-th event (from 0) of one kind in a log.
  template <typename What>
  size_t find(uint32_t vcpu, size_t n = 0) {
    const auto& log = sample_.log(VcpuId(vcpu));
    for (size_t i = 0; i < log.size(); ++i)
      if (std::holds_alternative<What>(log[i].what) && n-- == 0) return i;
    ADD_FAILURE() << "no such event";
    return 0;
  }
  template <typename What>
  What& nth(uint32_t vcpu, size_t n = 0) {
    return std::get<What>(sample_.log(VcpuId(vcpu))[find<What>(vcpu, n)].what);
  }

  TemporaryFolder folder_;
  RecordingEditor sample_ = sample_recording(3, 4);
  int saved_ = 0;
};

TEST_F(VerifyTest, FinishedRecordingIsAccepted) {
  const auto verified = verify();
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_TRUE(verified->finished);
  EXPECT_EQ(verified->transitions, sample_.final->tickets());
  EXPECT_EQ(verified->complete, Ticket(sample_.final->tickets()));
  EXPECT_EQ(verified->pages, 3u);
  ASSERT_EQ(verified->logs.size(), 3u);
  EXPECT_TRUE(verified->logs[2].ended);
  EXPECT_EQ(verified->logs[2].events, sample_.log(VcpuId(2)).size());
}

TEST_F(VerifyTest, PositionThatGoesBackIsDamage) {
  sample_.log(VcpuId(1))[4].position.stops = 0;
  expect_damage("vcpu-1.log: event 4");
}

TEST_F(VerifyTest, TicketThatGoesBackIsDamage) {
  nth<Loss>(1).ticket = Ticket(1);
  expect_damage("ticket 1 follows ticket");
}

TEST_F(VerifyTest, TicketUsedTwiceIsDamage) {
  nth<Gain>(1).ticket = nth<Loss>(0, 2).ticket;
  expect_damage("is used twice");
}

TEST_F(VerifyTest, MissingTicketIsDamageInAFinishedRecording) {
  sample_.log(VcpuId(1)).erase(sample_.log(VcpuId(1)).begin() + static_cast<ptrdiff_t>(find<Gain>(1)));
  expect_damage("but no log has ticket 5");
}

TEST_F(VerifyTest, MissingLastTicketIsDamageInAFinishedRecording) {
  auto& log = sample_.log(VcpuId(2));
  ASSERT_TRUE(ticket_of(log[log.size() - 2]));
  log.erase(log.end() - 2);
  expect_damage("tickets, the logs have");
}

TEST_F(VerifyTest, SwappedTicketsAreDamage) {
  std::swap(nth<Gain>(0).ticket, nth<Gain>(1).ticket);
  expect_damage("page 0x7: version 3, expected 0");
}

TEST_F(VerifyTest, OtherPageIsDamage) {
  nth<Loss>(1).page.page = PageNumber(70);
  expect_damage("page 0x46");
}

TEST_F(VerifyTest, OtherVersionIsDamage) {
  nth<Loss>(1).page.version += 1;
  expect_damage("page 0x7: version");
}

TEST_F(VerifyTest, StrongerRightIsDamage) {
  nth<Gain>(2, 1).right = Right::kWrite;  // of a page that the others read
  expect_damage("may write it while another reads it");
}

TEST_F(VerifyTest, WeakerLossIsDamage) {
  nth<Loss>(0, 1).left = Right::kRead;  // it was reading already
  expect_damage("loses what it has not");
}

TEST_F(VerifyTest, OtherEndDigestIsDamage) {
  nth<End>(1).registers ^= 1;
  expect_damage("the register digest is");
}

TEST_F(VerifyTest, OtherConsoleIsDamage) {
  sample_.console[0] ^= 1;
  expect_damage("is not the console output");
}

TEST_F(VerifyTest, OtherTicketCountInFinalIsDamage) {
  sample_.final->set_tickets(sample_.final->tickets() + 1);
  expect_damage("tickets, the logs have");
}

TEST_F(VerifyTest, MissingRegisterDigestInFinalIsDamage) {
  sample_.final->clear_register_digests();
  expect_damage("0 register digests for 3 vCPUs");
}

TEST_F(VerifyTest, UnknownModeIsDamage) {
  sample_.manifest.set_mode("turbo");
  expect_damage("turbo");
}

TEST_F(VerifyTest, OtherIndexIsDamage) {
  ASSERT_TRUE(sample_.save(folder_ / "i"));
  pb::Index index;
  for (int i = 0; i < 3; ++i) index.add_logs();
  ASSERT_TRUE(write_sealed_file(folder_ / "i" / kIndexFile, kIndexMagic, index.SerializeAsString()));
  const auto recording = Recording::open(folder_ / "i");
  ASSERT_TRUE(recording);
  const auto verified = verify_recording(*recording);
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message, HasSubstr("is not the index"));
}

TEST_F(VerifyTest, SerialModeKnowsNoPageOfRam) {
  sample_.manifest.set_mode("serial");
  expect_damage("in serial mode");
  sample_ = sample_prefix(2, 0);
  const PageNumber token(sample_.manifest.memory_bytes() >> kPageShift);  // the first behind RAM
  sample_.manifest.set_mode("serial");
  sample_.log(VcpuId(0)) = {{{1, Ticks(1)}, Gain{Ticket(1), Right::kWrite, {{token, 0}}}},
                            {{2, Ticks(2)}, Loss{Ticket(2), Right::kNone, {token, 1}}}};
  sample_.log(VcpuId(1)) = {{{1, Ticks(1)}, Gain{Ticket(3), Right::kWrite, {{token, 2}}}}};
  EXPECT_TRUE(verify());
}

TEST_F(VerifyTest, PrefixIsAcceptedWhereverEachLogEnds) {
  sample_ = sample_prefix(3, 3);
  const RecordingEditor whole = sample_;
  for (size_t i = 0; i <= whole.logs[0].size(); i += 4) {
    for (size_t j = 0; j <= whole.logs[1].size(); j += 3) {
      sample_ = whole;
      sample_.logs[0].resize(i);
      sample_.logs[1].resize(j);
      const auto verified = verify();
      ASSERT_TRUE(verified) << i << ", " << j << ": " << verified.error().message;
      EXPECT_FALSE(verified->finished);
      EXPECT_LE(verified->complete.raw, verified->transitions);
    }
  }
}

TEST_F(VerifyTest, PrefixSaysHowFarItsTicketsAreComplete) {
  sample_ = sample_prefix(2, 1);
  sample_.logs[0].resize(1);  // keeps ticket 1; vCPU 0 also had 2 to 4, 9 and 11
  const auto verified = verify();
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_EQ(verified->complete, Ticket(1));
  EXPECT_EQ(verified->transitions, 7u);
}

TEST_F(VerifyTest, TamperingIsFoundInAPrefixToo) {
  sample_ = sample_prefix(3, 4);
  nth<Loss>(1).page.version += 1;
  expect_damage("page 0x7: version");
}

TEST_F(VerifyTest, PrefixMayHaveEndEvents) {
  sample_.final.reset();  // killed between the last flush and `final`
  EXPECT_TRUE(verify());
}

TEST(EditEvent, ChangesOneEventAndNothingElse) {
  const TemporaryFolder folder;
  const RecordingEditor sample = sample_recording(2, 3);
  ASSERT_TRUE(sample.save(folder / "a"));
  ASSERT_TRUE(edit_event(folder / "a", folder / "b", VcpuId(1), 2,
                         [](Event& event) { event.position.ticks.raw += 1; }));
  auto forged = RecordingEditor::open(folder / "b");
  ASSERT_TRUE(forged) << forged.error().message;
  EXPECT_NE(forged->log(VcpuId(1))[2], sample.logs[1][2]);
  forged->log(VcpuId(1))[2].position.ticks.raw -= 1;
  EXPECT_EQ(forged->logs, sample.logs);
  EXPECT_EQ(edit_event(folder / "a", folder / "c", VcpuId(1), 999, [](Event&) {}).error().code,
            ErrorCode::kUsage);
  EXPECT_EQ(edit_event(folder / "a", folder / "b", VcpuId(1), 0, [](Event&) {}).error().code,
            ErrorCode::kUsage);
}

}  // namespace
}  // namespace reprise::log
