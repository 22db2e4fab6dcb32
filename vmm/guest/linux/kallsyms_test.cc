#include "vmm/guest/linux/kallsyms.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <vector>

#include "vmm/guest/linux/kallsyms_fake.h"

namespace reprise::vmm {
namespace {

std::vector<FakeSymbol> some_symbols() {
  std::vector<FakeSymbol> symbols;
  for (uint32_t i = 0; i < 700; ++i)
    symbols.push_back({"Tsymbol_" + std::to_string(i), kFakeBase + 0x10ull * i});
  symbols[300].name = "tmodule_finalize";
  symbols[500].name = "t" + std::string(200, 'x') + "long";  // more tokens than one byte of length can say
  return symbols;
}

TEST(Kallsyms, FindsAddressesInTheTablesOfLinux6_1) {
  const auto bytes = fake_kallsyms(some_symbols(), KallsymsLayout::kOffsetsFirst);
  const auto symbols = Kallsyms::find(bytes);
  ASSERT_TRUE(symbols.has_value());
  EXPECT_EQ(symbols->count(), 700u);
  EXPECT_EQ(symbols->address_of("symbol_0"), Gva(kFakeBase));
  EXPECT_EQ(symbols->address_of("module_finalize"), Gva(kFakeBase + 0x10ull * 300));
  EXPECT_EQ(symbols->address_of("symbol_699"), Gva(kFakeBase + 0x10ull * 699));
}

TEST(Kallsyms, FindsAddressesInTheTablesOfLinux6_4) {
  const auto bytes = fake_kallsyms(some_symbols(), KallsymsLayout::kOffsetsLast);
  const auto symbols = Kallsyms::find(bytes);
  ASSERT_TRUE(symbols.has_value());
  EXPECT_EQ(symbols->address_of("symbol_699"), Gva(kFakeBase + 0x10ull * 699));
}

TEST(Kallsyms, NamesOfMoreThan127TokensAreFound) {
  const auto bytes = fake_kallsyms(some_symbols(), KallsymsLayout::kOffsetsFirst);
  const auto symbols = Kallsyms::find(bytes);
  ASSERT_TRUE(symbols.has_value());
  EXPECT_EQ(symbols->address_of(std::string(200, 'x') + "long"), Gva(kFakeBase + 0x10ull * 500));
}

TEST(Kallsyms, PerCpuVariablesHaveSmallAddresses) {
  auto list = some_symbols();
  list[10] = {"Acpu_number", 0x1f000};
  const auto bytes = fake_kallsyms(list, KallsymsLayout::kOffsetsFirst);
  const auto symbols = Kallsyms::find(bytes);
  ASSERT_TRUE(symbols.has_value());
  EXPECT_EQ(symbols->address_of("cpu_number"), Gva(0x1f000));
  EXPECT_EQ(symbols->address_of("symbol_11"), Gva(kFakeBase + 0x10ull * 11));
}

TEST(Kallsyms, UnknownNameHasNoAddress) {
  const auto bytes = fake_kallsyms(some_symbols(), KallsymsLayout::kOffsetsFirst);
  const auto symbols = Kallsyms::find(bytes);
  ASSERT_TRUE(symbols.has_value());
  EXPECT_EQ(symbols->address_of("module"), std::nullopt);
  EXPECT_EQ(symbols->address_of(""), std::nullopt);
  EXPECT_EQ(symbols->address_of("Tsymbol_1"), std::nullopt);
}

TEST(Kallsyms, OtherDataBeforeThatLooksLikeTokensIsPassedOver) {
  std::vector<uint8_t> bytes(256);
  for (int round = 0; round < 2; ++round)
    for (uint8_t c = '0'; c <= '9'; ++c) bytes.insert(bytes.end(), {c, 0});
  bytes.resize((bytes.size() + 7) & ~size_t{7});
  const auto tables = fake_kallsyms(some_symbols(), KallsymsLayout::kOffsetsFirst);
  bytes.insert(bytes.end(), tables.begin(), tables.end());
  const auto symbols = Kallsyms::find(bytes);
  ASSERT_TRUE(symbols.has_value());
  EXPECT_EQ(symbols->address_of("symbol_1"), Gva(kFakeBase + 0x10));
}

TEST(Kallsyms, NothingIsFoundWhereNothingIs) {
  EXPECT_FALSE(Kallsyms::find({}).has_value());
  EXPECT_FALSE(Kallsyms::find(std::vector<uint8_t>(100000)).has_value());
}

RC_GTEST_PROP(Kallsyms, TablesThatEndAnywhereOrAreChangedAnywhereAreSafe, ()) {
  static const auto whole = fake_kallsyms(some_symbols(), KallsymsLayout::kOffsetsLast);
  auto bytes = whole;
  const auto at = *rc::gen::inRange<size_t>(0, bytes.size());
  bytes[at] = *rc::gen::arbitrary<uint8_t>();
  if (*rc::gen::arbitrary<bool>()) bytes.resize(at);
  if (const auto symbols = Kallsyms::find(bytes)) (void)symbols->address_of("no such symbol");
}

}  // namespace
}  // namespace reprise::vmm
