// The program under test is its own guest image.
#include "analysis/symbols.h"

#include <gtest/gtest.h>

#include <fstream>

namespace reprise::analysis {
namespace {

[[gnu::always_inline]] inline const void* here() {
  const void* address = nullptr;
  asm volatile("lea (%%rip), %0" : "=r"(address));
  return address;
}
constexpr int kLineOfHere = __LINE__ - 3;

}  // namespace

[[gnu::noinline]] const void* symbols_test_function() {
  return here();
}
constexpr int kLineOfCall = __LINE__ - 2;
uint64_t symbols_test_words[4] = {1, 2, 3, 4};

namespace {

// How much higher this program is loaded than its file says.
uint64_t moved() {
  std::ifstream maps("/proc/self/maps");
  uint64_t start = 0;
  maps >> std::hex >> start;
  return start;
}

// Of the instruction whose end symbols_test_function() returns.
Gva inlined_instruction() {
  return Gva(reinterpret_cast<uint64_t>(symbols_test_function()) - 1);
}

Gva gva(const void* pointer) {
  return Gva(reinterpret_cast<uint64_t>(pointer));
}

class SymbolsTest : public testing::Test {
 protected:
  Symbols symbols_ = *Symbols::open("/proc/self/exe", moved());
};

TEST_F(SymbolsTest, InlinedFunctionsComeFirst) {
  const auto frames = symbols_.code(inlined_instruction());
  ASSERT_GE(frames.size(), 2u);
  EXPECT_NE(frames[0].function.find("here"), std::string::npos) << frames[0].function;
  EXPECT_TRUE(frames[0].inlined);
  EXPECT_EQ(frames[0].line, kLineOfHere);
  EXPECT_NE(frames[0].file.find("symbols_test.cc"), std::string::npos) << frames[0].file;
  EXPECT_EQ(frames[1].function, "reprise::analysis::symbols_test_function");
  EXPECT_FALSE(frames[1].inlined);
  EXPECT_EQ(frames[1].line, kLineOfCall);
}

TEST_F(SymbolsTest, FunctionHasItsNameWithoutParameters) {
  const auto frames = symbols_.code(inlined_instruction());
  ASSERT_FALSE(frames.empty());
  EXPECT_EQ(frames.back().function, "reprise::analysis::symbols_test_function");
}

TEST_F(SymbolsTest, DataHasItsNameAndTheOffset) {
  EXPECT_EQ(symbols_.data(gva(&symbols_test_words[0])), "reprise::analysis::symbols_test_words");
  EXPECT_EQ(symbols_.data(gva(&symbols_test_words[2])), "reprise::analysis::symbols_test_words+0x10");
}

TEST_F(SymbolsTest, WhatIsNowhereHasNoName) {
  EXPECT_TRUE(symbols_.code(Gva(0x10)).empty());
  EXPECT_EQ(symbols_.data(Gva(0x10)), "");
}

TEST_F(SymbolsTest, WhatIsNoElfFileIsRefused) {
  const auto none = Symbols::open("/dev/null");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kBadImage);
}

}  // namespace
}  // namespace reprise::analysis
