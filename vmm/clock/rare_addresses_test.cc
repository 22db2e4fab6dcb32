#include "vmm/clock/rare_addresses.h"

#include <gtest/gtest.h>

#include <array>

#include "base/time.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kAddressSpace = 0x1000;
constexpr Gva kHere{0x401000}, kThere{0x402000};

void execute(uint64_t ns) {
  const uint64_t end = thread_ns() + ns;
  while (thread_ns() < end) {
  }
}

// A guest that executes for so long, and comes to an address.
RareAddresses::Verdict run(RareAddresses& rare, uint64_t ns, Gva address) {
  rare.runs();
  execute(ns);
  rare.stands();
  return rare.came_to(address);
}

TEST(RareAddressesTest, TriesNothingUntilItIsTold) {
  RareAddresses rare;
  EXPECT_FALSE(rare.is_trying());
  const std::array addresses = {kHere, kThere};
  rare.try_addresses(kAddressSpace, addresses);
  EXPECT_TRUE(rare.is_trying());
  EXPECT_EQ(rare.addresses().size(), 2u);
  rare.leave();
  EXPECT_FALSE(rare.is_trying());
}

TEST(RareAddressesTest, AnAddressThatComesAtOnceAgainAndAgainIsNoneAnyMore) {
  RareAddresses rare;
  const std::array addresses = {kHere, kThere};
  rare.try_addresses(kAddressSpace, addresses);
  auto verdict = RareAddresses::Verdict::kUnknown;
  for (int i = 0; i < 100 && verdict == RareAddresses::Verdict::kUnknown; ++i) verdict = run(rare, 0, kHere);
  EXPECT_EQ(verdict, RareAddresses::Verdict::kOften);
  ASSERT_EQ(rare.addresses().size(), 1u);
  EXPECT_EQ(rare.addresses()[0], kThere);
  rare.leave();
  rare.try_addresses(kAddressSpace, addresses);
  EXPECT_EQ(rare.addresses().size(), 1u) << "what is known is forgotten at once";
  rare.try_addresses(2 * kAddressSpace, addresses);
  EXPECT_EQ(rare.addresses().size(), 2u) << "what is known of another address space";
}

TEST(RareAddressesTest, AnAddressThatComesLateIsSeldom) {
  RareAddresses rare;
  const std::array addresses = {kHere, kThere};
  rare.try_addresses(kAddressSpace, addresses);
  EXPECT_EQ(run(rare, 0, kHere), RareAddresses::Verdict::kUnknown);
  EXPECT_EQ(run(rare, 20'000'000, kThere), RareAddresses::Verdict::kUnknown);
  auto verdict = RareAddresses::Verdict::kUnknown;
  for (int i = 0; i < 100 && verdict == RareAddresses::Verdict::kUnknown; ++i)
    verdict = run(rare, 20'000'000, kThere);
  EXPECT_EQ(verdict, RareAddresses::Verdict::kSeldom);
  rare.leave();
  rare.try_addresses(kAddressSpace, addresses);
  EXPECT_EQ(run(rare, 0, kThere), RareAddresses::Verdict::kSeldom);
}

}  // namespace
}  // namespace reprise::vmm
