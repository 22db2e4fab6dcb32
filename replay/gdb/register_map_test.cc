#include "replay/gdb/register_map.h"

#include <gtest/gtest.h>

#include "replay/gdb/packet_text.h"
#include "replay/gdb/target_description.h"

namespace reprise::replay::gdb {
namespace {

class RegisterMapTest : public ::testing::Test {
 protected:
  uint32_t number(std::string_view name) {
    for (uint32_t i = 0; i < map_.count(); ++i)
      if (map_.infos()[i].name == name) return i;
    ADD_FAILURE() << name;
    return 0;
  }
  std::string get(std::string_view name) { return to_hex(map_.get(registers_, number(name)).value()); }

  RegisterMap map_{true};
  Registers registers_ = [] {
    Registers registers;
    registers.ymm_high.emplace();
    return registers;
  }();
};

TEST_F(RegisterMapTest, NumbersAreThoseThatGdbAndStopRepliesUse) {
  EXPECT_EQ(number("rax"), 0u);
  EXPECT_EQ(number("rbp"), kRegisterRbp);
  EXPECT_EQ(number("rsp"), kRegisterRsp);
  EXPECT_EQ(number("rip"), kRegisterRip);
  EXPECT_EQ(number("eflags"), 17u);
  EXPECT_EQ(number("st0"), 24u);
  EXPECT_EQ(number("fctrl"), 32u);
  EXPECT_EQ(number("xmm0"), 40u);
  EXPECT_EQ(number("mxcsr"), 56u);
}

TEST_F(RegisterMapTest, EveryWritableRegisterKeepsWhatIsWritten) {
  const RegisterMap& map = map_;
  unsigned written = 0;
  for (uint32_t i = 0; i < map.count(); ++i) {
    std::vector<uint8_t> value(map.infos()[i].bytes);
    for (size_t byte = 0; byte < value.size(); ++byte) value[byte] = static_cast<uint8_t>(i + byte + 1);
    if (!map.set(registers_, i, value)) continue;
    ++written;
    EXPECT_EQ(map.get(registers_, i), value) << map.infos()[i].name;
  }
  // 17 general, eflags, 8 st, 16 xmm, mxcsr, 3 bases, 16 ymm halves: and none of them on top of another.
  EXPECT_EQ(written, 62u);
  for (uint32_t i = 0; i < map.count(); ++i) {
    if (map.infos()[i].name.starts_with("cr") || map.infos()[i].name == "efer") continue;
    const auto value = map.get(registers_, i).value();
    if (map.set(registers_, i, value)) {
      EXPECT_EQ(value[0], static_cast<uint8_t>(i + 1)) << map.infos()[i].name;
    }
  }
}

TEST_F(RegisterMapTest, WhatHangsOnMoreThanItsValueCannotBeChanged) {
  for (const char* name : {"cs", "gs", "cr0", "cr3", "cr8", "efer", "fctrl", "ftag"})
    EXPECT_FALSE(map_.set(registers_, number(name), std::vector<uint8_t>(map_.infos()[number(name)].bytes)))
        << name;
}

TEST_F(RegisterMapTest, SystemRegistersAreShown) {
  registers_.special.cr3 = 0x1234;
  registers_.special.efer = 0xd01;
  registers_.special.gs.base = 0x1122334455667788;
  registers_.special.gs.selector = 0x2b;
  registers_.kernel_gs_base = 7;
  EXPECT_EQ(get("cr3"), "3412000000000000");
  EXPECT_EQ(get("efer"), "010d000000000000");
  EXPECT_EQ(get("gs_base"), "8877665544332211");
  EXPECT_EQ(get("gs"), "2b000000");
  EXPECT_EQ(get("k_gs_base"), "0700000000000000");
}

// The top of the stack is register 6: st0 is 1.0, st1 is 0.0.
TEST_F(RegisterMapTest, X87TagsAreWorkedOut) {
  registers_.fxsave[3] = 6 << 3;
  registers_.fxsave[4] = 0xc0;
  registers_.fxsave[32 + 7] = 0x80;
  registers_.fxsave[32 + 8] = 0xff;
  registers_.fxsave[32 + 9] = 0x3f;
  EXPECT_EQ(get("ftag"), "ff4f0000");
}

TEST_F(RegisterMapTest, X87PointersAreTheHalvesOfTheirAddresses) {
  for (size_t i = 6; i < 24; ++i) registers_.fxsave[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(get("fop"), "06070000");
  EXPECT_EQ(get("fioff"), "08090a0b");
  EXPECT_EQ(get("fiseg"), "0c0d0e0f");
  EXPECT_EQ(get("fooff"), "10111213");
  EXPECT_EQ(get("foseg"), "14151617");
}

TEST_F(RegisterMapTest, AllAreSetOnlyIfThoseThatDifferMay) {
  auto values = map_.get_all(registers_);
  values[0] = 9;
  ASSERT_TRUE(map_.set_all(registers_, values));
  EXPECT_EQ(registers_.general.rax, 9u);
  values[number("cs") * 8 - 4] ^= 1;  // 17 of 8 bytes, one of 4
  EXPECT_FALSE(map_.set_all(registers_, values));
  values = map_.get_all(registers_);
  values.push_back(0);
  EXPECT_FALSE(map_.set_all(registers_, values));
  values.resize(values.size() - 2);
  EXPECT_FALSE(map_.set_all(registers_, values));
}

TEST_F(RegisterMapTest, WrongNumbersAndSizesAreRefused) {
  EXPECT_EQ(map_.get(registers_, map_.count()), std::nullopt);
  EXPECT_FALSE(map_.set(registers_, map_.count(), std::vector<uint8_t>(8)));
  EXPECT_FALSE(map_.set(registers_, 0, std::vector<uint8_t>(7)));
}

TEST_F(RegisterMapTest, DescriptionHasAvxOnlyWhereTheMachineHas) {
  EXPECT_NE(describe_registers(map_).find("org.gnu.gdb.i386.avx"), std::string::npos);
  const std::string without = describe_registers(RegisterMap(false));
  EXPECT_EQ(without.find("avx"), std::string::npos);
  EXPECT_EQ(without.find("ymm"), std::string::npos);
  EXPECT_NE(without.find("org.gnu.gdb.i386.segments"), std::string::npos);
}

}  // namespace
}  // namespace reprise::replay::gdb
