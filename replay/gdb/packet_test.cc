// Packets and the text in them, whole and damaged.
#include <gtest/gtest.h>

#include "replay/gdb/byte_stream_fake.h"
#include "replay/gdb/debug_target.h"
#include "replay/gdb/packet_reader.h"
#include "replay/gdb/packet_text.h"

namespace reprise::replay::gdb {
namespace {

using Kind = PacketReader::Kind;

std::vector<PacketReader::Item> read(std::string_view bytes, size_t at_once = 1 << 20) {
  PacketReader reader;
  std::vector<PacketReader::Item> items;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), at_once))) {
    const std::string_view piece = bytes.substr(0, at_once);
    reader.feed({reinterpret_cast<const uint8_t*>(piece.data()), piece.size()}, items);
  }
  return items;
}

// --- reading ---

TEST(PacketReaderTest, PacketIsReadWholeHoweverItArrives) {
  for (const size_t at_once : {1, 2, 3, 100}) {
    const auto items = read("+$g#67+$m400000,8#f5", at_once);
    ASSERT_EQ(items.size(), 2u) << at_once;
    EXPECT_EQ(items[0].text, "g");
    EXPECT_EQ(items[1].text, "m400000,8");
  }
}

TEST(PacketReaderTest, ChecksumIsReadInEitherCase) {
  const auto items = read("$m400000,8#F5");
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].kind, Kind::kPacket);
}

TEST(PacketReaderTest, WrongChecksumIsTold) {
  for (const char* damaged : {"$g#68", "$g#zz", "$g#6\n", "$h#67"}) {
    const auto items = read(damaged);
    ASSERT_EQ(items.size(), 1u) << damaged;
    EXPECT_EQ(items[0].kind, Kind::kBadChecksum) << damaged;
  }
}

TEST(PacketReaderTest, PacketWithoutItsEndIsNoPacket) {
  for (const char* damaged : {"$", "$g", "$g#", "$g#6", "g#67", "", "\n\n\n+++"})
    EXPECT_TRUE(read(damaged).empty()) << damaged;
}

TEST(PacketReaderTest, PacketAfterTheLostEndOfAnotherIsRead) {
  const auto items = read("$m4000$g#67");
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].text, "g");
}

TEST(PacketReaderTest, EscapesAreResolved) {
  const auto items = read(frame("X0,4:}\x03}\x04}]}\x0a"));
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].text, "X0,4:#$}*");
}

TEST(PacketReaderTest, InterruptIsOneOnlyBetweenPackets) {
  const auto items = read("\x03" + frame("X0,1:\x03") + "\x03");
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].kind, Kind::kInterrupt);
  EXPECT_EQ(items[1].text, "X0,1:\x03");
  EXPECT_EQ(items[2].kind, Kind::kInterrupt);
}

TEST(PacketReaderTest, LongestPacketIsReadAndALongerOneIsDropped) {
  EXPECT_EQ(read(frame(std::string(kMaxPacketBytes, 'x')))[0].kind, Kind::kPacket);
  const auto items = read(frame(std::string(100 * kMaxPacketBytes, 'x')) + "$g#67");
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].kind, Kind::kTooLong);
  EXPECT_EQ(items[0].text, "");
  EXPECT_EQ(items[1].text, "g");
}

// --- text ---

TEST(PacketTextTest, HexadecimalGoesBothWays) {
  EXPECT_EQ(to_hex("Az\xff"), "417aff");
  EXPECT_EQ(from_hex("417AfF"), (std::vector<uint8_t>{0x41, 0x7a, 0xff}));
  EXPECT_EQ(from_hex(""), std::vector<uint8_t>());
  for (const char* damaged : {"4", "4g", "g4", "41 "}) EXPECT_EQ(from_hex(damaged), std::nullopt) << damaged;
}

TEST(PacketTextTest, NumberEndsWhereItsDigitsDo) {
  PacketText text("10,ffffffffffffffff:");
  EXPECT_EQ(text.number(), 0x10u);
  EXPECT_TRUE(text.take(","));
  EXPECT_EQ(text.number(), ~0ull);
  EXPECT_EQ(text.rest(), ":");
  EXPECT_EQ(text.number(), std::nullopt);
}

TEST(PacketTextTest, NumberOfMoreThanSixtyFourBitsIsNone) {
  PacketText text("00000000000000001");
  EXPECT_EQ(text.number(), std::nullopt);
  EXPECT_EQ(text.rest(), "00000000000000001");
}

TEST(PacketTextTest, ErrorCannotBreakItsPacket) {
  EXPECT_EQ(error_text("a#b$c*d}e\nf"), "E.a b c d e f");
}

TEST(PacketTextTest, EscapedDataHasNothingThatFrames) {
  EXPECT_EQ(escape("a#$}*b"),
            "a}\x03}\x04}]}\x0a"
            "b");
}

// --- marks ---

TEST(MarkTest, TextIsReadBack) {
  for (const Mark mark : {Mark{}, Mark{7}, Mark{7, {8}}, Mark{7, {0, Ticks(9)}}, Mark{7, {0, Ticks(0), 1}},
                          Mark{~0ull, {~0ull, Ticks(~0ull), ~0ull}}}) {
    const auto read = parse_mark(to_text(mark));
    ASSERT_TRUE(read) << to_text(mark);
    EXPECT_EQ(*read, mark) << to_text(mark);
  }
  EXPECT_EQ(to_text(Mark{7}), "7");
  EXPECT_EQ(to_text(Mark{7, {0, Ticks(9)}}), "7.0.9");
}

TEST(MarkTest, OtherTextIsRefused) {
  for (const char* text :
       {"", ".", "7.", "7..8", "7.8.9.10.11", "-1", "0x7", "seven", "99999999999999999999", " 7", "7 "})
    EXPECT_FALSE(parse_mark(text)) << text;
}

TEST(MarkTest, OrderIsThatOfTheParts) {
  EXPECT_LT((Mark{1, {9, Ticks(9)}}), (Mark{2}));
  EXPECT_LT((Mark{1, {1, Ticks(9)}}), (Mark{1, {2}}));
  EXPECT_LT((Mark{1, {1, Ticks(1)}}), (Mark{1, {1, Ticks(2)}}));
}

}  // namespace
}  // namespace reprise::replay::gdb
