#include "log/event_codec.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "log/format.h"

namespace reprise::log {
namespace {

// Small numbers, any numbers, and those at which widths and signs change.
rc::Gen<uint64_t> any_u64() {
  return rc::gen::oneOf(
      rc::gen::inRange<uint64_t>(0, 300), rc::gen::arbitrary<uint64_t>(),
      rc::gen::element<uint64_t>(0, 1, 127, 128, 1ull << 31, 1ull << 32, 1ull << 63, ~0ull));
}

PageStep any_step() {
  return {PageNumber(*any_u64()), static_cast<uint32_t>(*any_u64())};
}

Right any_right() {
  return *rc::gen::element(Right::kNone, Right::kRead, Right::kWrite);
}

Event any_event() {
  Event event;
  event.position = {*any_u64(), Ticks(*any_u64())};
  switch (*rc::gen::inRange(0, 11)) {
    case 0: {
      Gain gain = {Ticket(*any_u64()), any_right(), {}};
      gain.pages.resize(*rc::gen::inRange(0, 5));
      for (PageStep& step : gain.pages) step = any_step();
      event.what = std::move(gain);
      break;
    }
    case 1:
      event.what = Loss{Ticket(*any_u64()), any_right(), any_step()};
      break;
    case 2:
      event.what = Value{*rc::gen::element(Source::kTime, Source::kTimerCount, Source::kConsoleInput,
                                           Source::kConsoleStatus, Source::kRandom),
                         *any_u64()};
      break;
    case 3:
      event.what = ApicMessage{
          *rc::gen::element(ApicMessageKind::kFixed, ApicMessageKind::kNmi, ApicMessageKind::kInit,
                            ApicMessageKind::kStartup, ApicMessageKind::kTimer),
          *rc::gen::arbitrary<uint8_t>()};
      break;
    case 4:
      event.what = Digest{*any_u64()};
      break;
    case 5:
      event.what = Spin{*any_u64(), *rc::gen::arbitrary<uint32_t>()};
      break;
    case 6:
      event.what = MachineDigest{*any_u64()};
      break;
    case 7:
      event.what = Input{*rc::gen::element(InputDevice::kIntervalTimer, InputDevice::kConsole),
                         *rc::gen::arbitrary<std::string>()};
      break;
    case 8:
      event.what = UserBreakpoint{Gva(*any_u64()), *any_u64(), *any_u64()};
      break;
    case 9:
      event.what = Preemption{Gva(*any_u64()), *any_u64()};
      break;
    default:
      event.what = End{*any_u64()};
      break;
  }
  return event;
}

std::string encoded(BlockEncoder& encoder, const std::vector<Event>& events) {
  for (const Event& event : events) encoder.add(event);
  std::string raw;
  encoder.take(raw);
  return raw;
}

std::vector<Event> decoded(const std::string& raw, size_t count) {
  std::vector<Event> events;
  const Status status = decode_block(bytes_of(raw), static_cast<uint32_t>(count), events);
  EXPECT_TRUE(status) << status.error().message;
  return events;
}

RC_GTEST_PROP(EventCodec, AnyEventsComeBackAsTheyWere, ()) {
  std::vector<Event> events(*rc::gen::inRange(0, 40));
  for (Event& event : events) event = any_event();
  BlockEncoder encoder;
  RC_ASSERT(decoded(encoded(encoder, events), events.size()) == events);
}

RC_GTEST_PROP(EventCodec, EveryBlockStartsFromZero, ()) {
  const std::vector<Event> first = {any_event(), any_event()};
  const std::vector<Event> second = {any_event(), any_event()};
  BlockEncoder warm;
  encoded(warm, first);
  BlockEncoder fresh;
  RC_ASSERT(encoded(warm, second) == encoded(fresh, second));
}

RC_GTEST_PROP(EventCodec, AddSaysTheBytesItAdds, ()) {
  std::vector<Event> events(*rc::gen::inRange(1, 40));
  BlockEncoder encoder;
  size_t sum = 0;
  for (Event& event : events) sum += encoder.add(event = any_event());
  RC_ASSERT(sum == encoder.bytes());
  RC_ASSERT(encoder.count() == events.size());
  std::string raw;
  encoder.take(raw);
  // 17 columns, each with a tag and a length of at most 4 bytes together here.
  RC_ASSERT(raw.size() >= sum);
  RC_ASSERT(raw.size() <= sum + size_t{17} * 4);
}

RC_GTEST_PROP(EventCodec, AnyBytesAreDecodedOrRefused, ()) {
  const auto bytes = *rc::gen::arbitrary<std::vector<uint8_t>>();
  std::vector<Event> events;
  const auto count = *rc::gen::inRange<uint32_t>(0, 8);
  const Status status = decode_block(bytes, count, events);
  RC_ASSERT((status ? events.size() == count : status.error().code == ErrorCode::kDamaged));
}

RC_GTEST_PROP(EventCodec, AnyChangedByteIsDecodedOrRefused, ()) {
  std::vector<Event> events(*rc::gen::inRange(1, 10));
  for (Event& event : events) event = any_event();
  BlockEncoder encoder;
  std::string raw = encoded(encoder, events);
  const int change = *rc::gen::inRange(1, 256);
  char& byte = raw[*rc::gen::inRange<size_t>(0, raw.size())];
  byte = static_cast<char>(byte ^ change);
  std::vector<Event> out;
  const Status status = decode_block(bytes_of(raw), static_cast<uint32_t>(events.size()), out);
  RC_ASSERT((status || status.error().code == ErrorCode::kDamaged));
}

void expect_damaged(const pb::Block& block, uint32_t count) {
  std::vector<Event> events;
  const Status status = decode_block(bytes_of(block.SerializeAsString()), count, events);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDamaged);
}

pb::Block one_event(pb::EventKind kind) {
  pb::Block block;
  block.mutable_kinds()->push_back(static_cast<char>(kind));
  block.add_stops(1);
  block.add_ticks(1);
  return block;
}

TEST(EventCodec, UnknownKindIsDamage) {
  expect_damaged(one_event(static_cast<pb::EventKind>(pb::EVENT_KIND_MACHINE_DIGEST + 1)), 1);
}

TEST(EventCodec, MissingColumnIsDamage) {
  for (int kind = pb::EVENT_KIND_GAIN; kind <= pb::EVENT_KIND_MACHINE_DIGEST; ++kind)
    expect_damaged(one_event(static_cast<pb::EventKind>(kind)), 1);
}

TEST(EventCodec, LeftOverColumnIsDamage) {
  pb::Block block = one_event(pb::EVENT_KIND_END);
  block.add_digests(1);
  block.add_digests(2);
  expect_damaged(block, 1);
}

TEST(EventCodec, OtherCountThanTheHeaderIsDamage) {
  pb::Block block = one_event(pb::EVENT_KIND_END);
  block.add_digests(1);
  expect_damaged(block, 2);
}

TEST(EventCodec, UnknownRightIsDamage) {
  pb::Block block = one_event(pb::EVENT_KIND_LOSS);
  block.add_tickets(1);
  block.set_rights("\x03");
  block.add_pages(1);
  block.add_versions(0);
  expect_damaged(block, 1);
}

TEST(EventCodec, UnknownSourceIsDamage) {
  pb::Block block = one_event(pb::EVENT_KIND_VALUE);
  block.add_values(1);
  for (const char source : {'\0', '\x06', '\xff'}) {
    block.set_sources(std::string(1, source));
    expect_damaged(block, 1);
  }
}

TEST(EventCodec, UnknownMessageKindIsDamage) {
  pb::Block block = one_event(pb::EVENT_KIND_APIC_MESSAGE);
  block.set_vectors("A");
  for (const char kind : {'\0', '\x08'}) {
    block.set_message_kinds(std::string(1, kind));
    expect_damaged(block, 1);
  }
}

// Format version 1 had no Input.
TEST(EventCodec, OldMessagesForDevicesComeBackAsInputs) {
  pb::Block block = one_event(pb::EVENT_KIND_APIC_MESSAGE);
  std::vector<Event> events;
  block.set_message_kinds("\x07");
  block.set_vectors("A");
  ASSERT_TRUE(decode_block(bytes_of(block.SerializeAsString()), 1, events));
  EXPECT_EQ(events[0].what, (decltype(Event::what)(Input{InputDevice::kConsole, "A"})));
  block.set_message_kinds("\x06");
  block.set_vectors(std::string(1, '\0'));
  ASSERT_TRUE(decode_block(bytes_of(block.SerializeAsString()), 1, events));
  EXPECT_EQ(events[0].what, (decltype(Event::what)(Input{InputDevice::kIntervalTimer, {}})));
  block.set_vectors("\x01");  // no other line had a timer
  expect_damaged(block, 1);
}

TEST(EventCodec, UnknownInputDeviceIsDamage) {
  pb::Block block = one_event(pb::EVENT_KIND_INPUT);
  block.add_input_sizes(1);
  block.set_input_bytes("A");
  for (const char device : {'\0', '\x03'}) {
    block.set_input_devices(std::string(1, device));
    expect_damaged(block, 1);
  }
}

TEST(EventCodec, InputSizeBeyondTheColumnIsDamageWithoutAllocating) {
  pb::Block block = one_event(pb::EVENT_KIND_INPUT);
  block.set_input_devices("\x02");
  block.add_input_sizes(0xffffffff);
  block.set_input_bytes("A");
  expect_damaged(block, 1);
  block.set_input_sizes(0, 2);
  expect_damaged(block, 1);
}

TEST(EventCodec, DigestOfOneByteIsTheByte) {
  EXPECT_EQ(digest_of({InputDevice::kIntervalTimer, {}}), 0u);
  EXPECT_EQ(digest_of({InputDevice::kConsole, "\xff"}), 0xffu);
  EXPECT_NE(digest_of({InputDevice::kConsole, "ab"}), digest_of({InputDevice::kConsole, "ba"}));
}

TEST(EventCodec, PageCountBeyondTheColumnIsDamageWithoutAllocating) {
  pb::Block block = one_event(pb::EVENT_KIND_GAIN);
  block.add_tickets(1);
  block.set_rights("\x01");
  block.add_page_counts(0xffffffff);
  expect_damaged(block, 1);
}

TEST(EventCodec, EncoderKnowsFirstPositionAndTicketOfItsBlock) {
  BlockEncoder encoder;
  encoder.add({{3, Ticks(40)}, Digest{1}});
  EXPECT_EQ(encoder.first_ticket(), Ticket());
  encoder.add({{4, Ticks(50)}, Loss{Ticket(9), Right::kNone, {PageNumber(1), 0}}});
  encoder.add({{4, Ticks(50)}, Loss{Ticket(10), Right::kNone, {PageNumber(2), 0}}});
  EXPECT_EQ(encoder.first_position(), (Position{3, Ticks(40)}));
  EXPECT_EQ(encoder.first_ticket(), Ticket(9));
}

TEST(EventCodec, LargestGainComesBack) {
  Gain gain = {Ticket(1), Right::kWrite, {}};
  for (size_t i = 0; i < kMaxPagesPerGain; ++i) gain.pages.push_back({PageNumber(~0ull / 3 * i), ~0u});
  BlockEncoder encoder;
  const std::vector<Event> events = {{{}, gain}};
  const std::string raw = encoded(encoder, events);
  EXPECT_LE(raw.size(), kMaxRawBytes);
  EXPECT_EQ(decoded(raw, 1), events);
}

}  // namespace
}  // namespace reprise::log
