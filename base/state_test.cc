#include "base/state.h"

#include <gtest/gtest.h>

#include "base/page_right.h"

namespace reprise {
namespace {

struct Part {
  uint32_t number = 0;
  bool flag = false;
  void visit(StateVisitor& visitor) {
    visitor("number", number);
    visitor("flag", flag);
  }
};

struct Whole {
  uint64_t word = 0;
  std::string text;
  std::optional<PageRight> maybe;
  std::vector<uint16_t> list;
  std::vector<Part> parts;
  std::vector<bool> bits;
  uint64_t statistics = 0;
  void visit(StateVisitor& visitor) {
    visitor("word", word);
    visitor("text", text);
    visitor("maybe", maybe);
    visitor("list", list);
    visitor("parts", parts);
    visitor("bits", bits);
    visitor.aside([&] { visitor("statistics", statistics); });
  }
};

Whole example() {
  return {.word = 7,
          .text = "a text",
          .maybe = PageRight{PageNumber(3), Right::kWrite},
          .list = {1, 2, 3},
          .parts = {{4, true}, {5, false}},
          .bits = {true, false, true},
          .statistics = 9};
}

uint64_t digest_of(Whole whole) {
  StateDigest digest;
  digest("whole", whole);
  return digest.value();
}

TEST(StateTest, WhatIsTakenDownIsPutBack) {
  Whole from = example();
  Whole to{.maybe = {}, .list = {9}, .parts = {{1, true}}, .bits = {false}};
  const std::string bytes = save_state(from);
  ASSERT_TRUE(restore_state(to, bytes));
  EXPECT_EQ(save_state(to), bytes);
  EXPECT_EQ(to.maybe, from.maybe);
  EXPECT_EQ(to.bits, from.bits);
}

TEST(StateTest, DigestSeesEveryFieldButThoseAside) {
  Whole whole = example();
  const uint64_t before = digest_of(whole);
  whole.statistics = 10;
  EXPECT_EQ(digest_of(whole), before);
  whole.parts[1].flag = true;
  EXPECT_NE(digest_of(whole), before);
  whole = example();
  whole.maybe.reset();
  EXPECT_NE(digest_of(whole), before);
}

TEST(StateTest, FieldThatDoesNotFitIsNamed) {
  struct Other {
    uint64_t word = 0;
    uint32_t text = 0;
    void visit(StateVisitor& visitor) {
      visitor("word", word);
      visitor("text", text);
    }
  } other;
  Whole from = example();
  const Status status = restore_state(other, save_state(from));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDamaged);
  EXPECT_NE(status.error().message.find("(text does not fit)"), std::string::npos) << status.error().message;
}

// Whatever the bytes are: an object or one error, within the memory that they have themselves.
TEST(StateTest, ReaderTakesNoBytesThatAreNotThere) {
  Whole from = example();
  const std::string good = save_state(from);
  for (size_t at = 0; at < good.size(); ++at) {
    Whole to;
    EXPECT_FALSE(restore_state(to, good.substr(0, at))) << at;
    for (const unsigned flip : {0x01u, 0x80u, 0xffu}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      Whole other;
      if (restore_state(other, bad)) {
        EXPECT_EQ(save_state(other), bad) << at;
      }
    }
  }
}

TEST(StateTest, ValueThatNoWriterWritesIsRefused) {
  Whole from = example();
  std::string bytes = save_state(from);
  const size_t right = bytes.find("right") + 5 + 8;
  ASSERT_EQ(bytes[right], static_cast<char>(Right::kWrite));
  bytes[right] = 3;
  Whole to;
  EXPECT_FALSE(restore_state(to, bytes));
}

}  // namespace
}  // namespace reprise
