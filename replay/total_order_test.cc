// The order of tickets, read from logs that may claim anything.
#include "replay/total_order.h"

#include <gtest/gtest.h>

#include "log/sample_recording.h"

namespace reprise::replay {
namespace {

Ticket& last_ticket(std::vector<log::Event>& log) {
  for (auto event = log.rbegin();; ++event) {
    if (auto* gain = std::get_if<log::Gain>(&event->what)) return gain->ticket;
    if (auto* loss = std::get_if<log::Loss>(&event->what)) return loss->ticket;
  }
}

class TotalOrderTest : public testing::Test {
 protected:
  Result<TotalOrder> read(const log::RecordingEditor& editor) {
    const auto path = folder_ / std::to_string(number_++);
    TRY(editor.save(path));
    TRY_ASSIGN(const auto recording, log::Recording::open(path));
    return TotalOrder::read(recording);
  }

  log::TemporaryFolder folder_;
  int number_ = 0;
};

TEST_F(TotalOrderTest, EveryTicketHasItsOwner) {
  const log::RecordingEditor sample = log::sample_recording(3, 4);
  const auto order = read(sample);
  ASSERT_TRUE(order) << order.error().message;
  EXPECT_EQ(order->last(), Ticket(sample.final->tickets()));
  for (uint32_t vcpu = 0; vcpu < 3; ++vcpu)
    for (const log::Event& event : sample.logs[vcpu]) {
      const auto ticket = ticket_of(event);
      if (ticket.has_value()) {
        EXPECT_EQ(order->owner_of(*ticket), VcpuId(vcpu));
      }
    }
}

TEST_F(TotalOrderTest, HugeTicketIsDamageWithoutAllocating) {
  for (const uint64_t ticket : {400'000'000ull, 1ull << 32, (1ull << 32) - 1, ~0ull - 1, ~0ull}) {
    log::RecordingEditor sample = log::sample_recording(2, 2);
    last_ticket(sample.logs[1]) = Ticket(ticket);
    const auto order = read(sample);
    ASSERT_FALSE(order) << ticket;
    EXPECT_EQ(order.error().code, ErrorCode::kDamaged);
  }
}

TEST_F(TotalOrderTest, PrefixGoesUpToTheFirstMissingTicket) {
  log::RecordingEditor sample = log::sample_prefix(2, 2);
  Ticket& last = last_ticket(sample.logs[1]);
  const uint64_t before = last.raw;
  last = Ticket(1ull << 63);
  const auto order = read(sample);
  ASSERT_TRUE(order) << order.error().message;
  EXPECT_EQ(order->last().raw, before - 1);
}

TEST_F(TotalOrderTest, TicketUsedTwiceOrGoingBackIsDamage) {
  log::RecordingEditor sample = log::sample_recording(2, 2);
  last_ticket(sample.logs[1]) = last_ticket(sample.logs[0]);
  EXPECT_FALSE(read(sample));
  last_ticket(sample.logs[1]) = Ticket(1);
  EXPECT_FALSE(read(sample));
}

}  // namespace
}  // namespace reprise::replay
