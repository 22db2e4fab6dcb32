#include "replay/debug/mapping_filter.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::replay {
namespace {

using ::testing::ElementsAre;
using Lines = std::vector<std::string>;

constexpr Gpa kCounter(0x1000), kRoom(0x3000), kFault(0x2005), kSwitched(0x5005);

vmm::MappingFunctions functions(uint64_t room) {
  return {.fault = kFault,
          .switched = kSwitched,
          .moved = Gpa(0x6000),
          .counted = {{.counter = kCounter, .room = kRoom, .room_bytes = room}}};
}

Lines disassemble(const MappingFilter::Piece& piece) {
  Lines lines;
  ZydisDisassembledInstruction instruction;
  for (size_t at = 0; at < piece.bytes.size(); at += instruction.info.length) {
    const uint64_t address = piece.start.raw + at;
    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, address, piece.bytes.data() + at,
                                            piece.bytes.size() - at, &instruction)))
      return {};
    lines.push_back(fmt::format("{:x} {}", address, instruction.text));
  }
  return lines;
}

TEST(MappingFilter, HaltsForNearFaultsAndForOtherAddressSpaces) {
  const auto filter = make_mapping_filter(functions(100), {2, 0x3ffffff});
  ASSERT_TRUE(filter.has_value());
  ASSERT_EQ(filter->pieces.size(), 3U);
  EXPECT_THAT(disassemble(filter->pieces[0]),
              ElementsAre("3000 mov r11, rsi", "3003 shr r11, 0x15",                 //
                          "3007 cmp r11d, 0x02", "300e jz 0x000000000000301E",       //
                          "3010 cmp r11d, 0x3FFFFFF", "3017 jz 0x000000000000301E",  //
                          "3019 jmp 0x0000000000001000",                             //
                          "301e hlt", "301f jmp 0x0000000000001000",                 //
                          "3024 test rdi, rdi", "3027 jnz 0x000000000000302E",       //
                          "3029 jmp 0x0000000000001000",                             //
                          "302e hlt", "302f jmp 0x0000000000001000"));
  EXPECT_THAT(disassemble(filter->pieces[1]), ElementsAre("2000 call 0x0000000000003000"));
  EXPECT_THAT(disassemble(filter->pieces[2]), ElementsAre("5000 call 0x0000000000003024"));
  EXPECT_THAT(filter->halts, ElementsAre(Gpa(0x301e), Gpa(0x302e)));
}

TEST(MappingFilter, NeedsItsRoom) {
  EXPECT_TRUE(make_mapping_filter(functions(0x34), {1, 2}).has_value());
  EXPECT_FALSE(make_mapping_filter(functions(0x33), {1, 2}).has_value());
}

TEST(MappingFilter, JumpsNoFurtherThanAShortJumpReaches) {
  std::set<uint64_t> near;
  while (near.size() < 13) near.insert(near.size());
  EXPECT_TRUE(make_mapping_filter(functions(1000), near).has_value());
  near.insert(13);
  EXPECT_FALSE(make_mapping_filter(functions(1000), near).has_value());
}

}  // namespace
}  // namespace reprise::replay
