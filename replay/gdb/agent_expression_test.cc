// Bytecode as GDB 13 compiles it (`maint agent EXPRESSION`), each instruction, and hostile code.
#include "replay/gdb/agent_expression.h"

#include <gtest/gtest.h>

#include "replay/gdb/packet_text.h"

namespace reprise::replay::gdb {
namespace {

// Register n holds 100 + n; memory from 0x1000 to 0x100f holds f0, f1, ... ff.
class FakeContext final : public ExpressionContext {
 public:
  [[nodiscard]] Result<uint64_t> register_value(uint32_t number) const override {
    if (number > 16) return fail(ErrorCode::kUsage, "no register {}", number);
    return 100 + number;
  }
  Status read(Gva address, std::span<uint8_t> out) const override {
    for (size_t i = 0; i < out.size(); ++i) {
      if (address.raw + i < 0x1000 || address.raw + i >= 0x1010)
        return fail(ErrorCode::kNotFound, "not mapped");
      out[i] = static_cast<uint8_t>(0xf0 + address.raw + i - 0x1000);
    }
    return {};
  }
};

Result<uint64_t> run(std::string_view hex) {
  return evaluate(from_hex(hex).value(), FakeContext());
}

// The value of code without its end.
uint64_t value(const std::string& hex) {
  const auto result = run(hex + "27");
  EXPECT_TRUE(result) << hex << ": " << result.error().message;
  return result.value_or(0xbad);
}

TEST(AgentExpressionTest, ConstantsAreHighestByteFirst) {
  EXPECT_EQ(value("22ff"), 0xffu);
  EXPECT_EQ(value("231234"), 0x1234u);
  EXPECT_EQ(value("2412345678"), 0x12345678u);
  EXPECT_EQ(value("25123456789abcdef0"), 0x123456789abcdef0u);
}

TEST(AgentExpressionTest, ArithmeticIsOfSixtyFourBits) {
  EXPECT_EQ(value("2203220502"), 8u);
  EXPECT_EQ(value("2203220503"), ~0ull - 1);
  EXPECT_EQ(value("2203220504"), 15u);
  EXPECT_EQ(value("25fffffffffffffff9220205"), static_cast<uint64_t>(-3));
  EXPECT_EQ(value("25fffffffffffffff9220206"), 0x7ffffffffffffffcu);
  EXPECT_EQ(value("25fffffffffffffff9220207"), static_cast<uint64_t>(-1));
  EXPECT_EQ(value("2207220408"), 3u);
}

TEST(AgentExpressionTest, DivisionThatOverflowsIsDefined) {
  EXPECT_EQ(value("258000000000000000"
                  "25ffffffffffffffff"
                  "05"),
            0x8000000000000000u);
  EXPECT_EQ(value("258000000000000000"
                  "25ffffffffffffffff"
                  "07"),
            0u);
}

TEST(AgentExpressionTest, BitsShiftAndCombine) {
  EXPECT_EQ(value("2201223f09"), 0x8000000000000000u);
  EXPECT_EQ(value("2201224009"), 0u);
  EXPECT_EQ(value("25800000000000000022040a"), 0xf800000000000000u);
  EXPECT_EQ(value("2580000000000000002240"
                  "0a"),
            ~0ull);
  EXPECT_EQ(value("25800000000000000022040b"), 0x0800000000000000u);
  EXPECT_EQ(value("220c220a0f"), 8u);
  EXPECT_EQ(value("220c220a10"), 14u);
  EXPECT_EQ(value("220c220a11"), 6u);
  EXPECT_EQ(value("220012"), ~0ull);
  EXPECT_EQ(value("22000e"), 1u);
  EXPECT_EQ(value("22050e"), 0u);
}

TEST(AgentExpressionTest, ComparisonsAreSignedOrNot) {
  EXPECT_EQ(value("2205220513"), 1u);
  EXPECT_EQ(value("2205220613"), 0u);
  EXPECT_EQ(value("25ffffffffffffffff220114"), 1u);
  EXPECT_EQ(value("25ffffffffffffffff220115"), 0u);
}

TEST(AgentExpressionTest, ExtensionsKeepTheLowBits) {
  EXPECT_EQ(value("2380ff1608"), ~0ull);
  EXPECT_EQ(value("23807f1608"), 0x7fu);
  EXPECT_EQ(value("2380ff2a08"), 0xffu);
  EXPECT_EQ(value("25ffffffffffffffff2a40"), ~0ull);
  EXPECT_EQ(value("22051600"), 5u);
}

TEST(AgentExpressionTest, MemoryIsReadLowestByteFirst) {
  EXPECT_EQ(value("23100017"), 0xf0u);
  EXPECT_EQ(value("23100018"), 0xf1f0u);
  EXPECT_EQ(value("23100019"), 0xf3f2f1f0u);
  EXPECT_EQ(value("2310081a"), 0xfffefdfcfbfaf9f8u);
  EXPECT_FALSE(run("2310091a27"));
}

TEST(AgentExpressionTest, RegistersAreNumberedAsDescribed) {
  EXPECT_EQ(value("260010"), 116u);
  EXPECT_FALSE(run("26001127"));
}

TEST(AgentExpressionTest, StackIsRearranged) {
  EXPECT_EQ(value("22072804"), 49u);
  EXPECT_EQ(value("2207220929"), 7u);
  EXPECT_EQ(value("220722092b03"), 2u);
  EXPECT_EQ(value("220122022203"
                  "3202"),
            1u);
  // a b c => c a b; then a - b on top of c.
  EXPECT_EQ(value("220922042207"
                  "33"
                  "03"),
            5u);
}

TEST(AgentExpressionTest, JumpsGoWhereTheySay) {
  EXPECT_EQ(value("2201"
                  "200007"
                  "2205"
                  "2209"),
            9u);
  EXPECT_EQ(value("2200"
                  "200008"
                  "2205"
                  "27"
                  "2209"),
            5u);
  EXPECT_EQ(value("210005"
                  "2205"
                  "2209"),
            9u);
}

// `maint agent-eval $rcx == 3` of GDB 13.
TEST(AgentExpressionTest, ConditionOfGdbIsEvaluated) {
  EXPECT_EQ(value("260002"
                  "2203"
                  "13"),
            0u);
  EXPECT_EQ(value("260002"
                  "2266"
                  "13"),
            1u);
}

TEST(AgentExpressionTest, HostileCodeIsAnError) {
  for (const char* code : {"",                      // no end
                           "27",                    // nothing on the stack
                           "02",         "220102",  // too little on the stack
                           "2b",         "22012b",     "2201220133", "29", "28", "220132ff",
                           "25ffffff",                  // constant cut off
                           "210000",                    // for ever
                           "2200200000",                // no end either
                           "21ffff",                    // out of the code
                           "2201220005", "2201220008",  // by zero
                           "0c",         "01",         "00",         "2e", "ff", "34"})
    EXPECT_FALSE(run(code)) << code;
}

TEST(AgentExpressionTest, DeepestStackIsBounded) {
  std::string code;
  for (int i = 0; i < 128; ++i) code += "2201";
  EXPECT_TRUE(run(code + "27"));
  EXPECT_FALSE(run(code + "220127"));
  EXPECT_FALSE(
      run("2201"
          "28"
          "210002"));
  EXPECT_FALSE(evaluate(std::vector<uint8_t>(kMaxExpressionBytes + 1, 0x27), FakeContext()));
}

}  // namespace
}  // namespace reprise::replay::gdb
