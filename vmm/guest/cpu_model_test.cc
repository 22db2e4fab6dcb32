#include "vmm/guest/cpu_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::vmm {
namespace {

using testing::HasSubstr;
using testing::Not;

kvm_cpuid_entry2& leaf(std::vector<kvm_cpuid_entry2>& table, uint32_t function) {
  return *std::find_if(table.begin(), table.end(),
                       [&](const auto& entry) { return entry.function == function; });
}

TEST(CpuModelTest, HostWithTheSameFeaturesIsAccepted) {
  EXPECT_TRUE(check_cpu_model(cpu_model(), cpu_model()));
}

TEST(CpuModelTest, HostWithMoreFeaturesIsAccepted) {
  auto host = cpu_model();
  leaf(host, 1).ecx = ~0u;
  leaf(host, 7).ebx = ~0u;
  EXPECT_TRUE(check_cpu_model(cpu_model(), host));
}

TEST(CpuModelTest, MissingFeaturesAreNamedAndNoOthers) {
  auto host = cpu_model();
  leaf(host, 1).ecx &= ~(1u << 13);
  leaf(host, 0x80000001).edx &= ~(1u << 20);
  const Status status = check_cpu_model(cpu_model(), host);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kHost);
  EXPECT_THAT(status.error().message, HasSubstr(": cmpxchg16b, nx;"));
}

TEST(CpuModelTest, LeafThatTheHostLacksHasNoFeatures) {
  auto model = cpu_model();
  leaf(model, 7).ebx = 1u << 5;
  auto host = cpu_model();
  std::erase_if(host, [](const auto& entry) { return entry.function == 7; });
  const Status status = check_cpu_model(model, host);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr(": avx2;"));
  EXPECT_THAT(status.error().message, Not(HasSubstr("sse")));
}

// Nothing whose result differs from run to run: no TSC (edx 4), no RDRAND (ecx 30), no RDSEED (leaf 7, ebx
// 18).
TEST(CpuModelTest, ShowsNoSourceOfChance) {
  auto model = cpu_model();
  EXPECT_EQ(leaf(model, 1).edx & 1u << 4, 0u);
  EXPECT_EQ(leaf(model, 1).ecx & 1u << 30, 0u);
  EXPECT_EQ(leaf(model, 7).ebx & 1u << 18, 0u);
}

TEST(CpuModelTest, VcpusDifferInTheirApicIdOnly) {
  auto first = cpu_model_for(cpu_model(), VcpuId(0), 8);
  auto last = cpu_model_for(cpu_model(), VcpuId(7), 8);
  EXPECT_EQ(leaf(first, 1).ebx >> 24, 0u);
  EXPECT_EQ(leaf(last, 1).ebx >> 24, 7u);
  EXPECT_EQ(leaf(last, 1).ebx >> 16 & 0xff, 8u);
  leaf(last, 1).ebx = leaf(first, 1).ebx;
  ASSERT_EQ(first.size(), last.size());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].function, last[i].function);
    EXPECT_EQ(first[i].eax, last[i].eax);
    EXPECT_EQ(first[i].ebx, last[i].ebx);
    EXPECT_EQ(first[i].ecx, last[i].ecx);
    EXPECT_EQ(first[i].edx, last[i].edx);
  }
}

// The TSC is shown, for its reads are answered; nothing else whose result differs from run to run.
TEST(CpuModelTest, LinuxIsShownTheTscAndNoOtherSourceOfChance) {
  auto model = linux_cpu_model();
  EXPECT_EQ(leaf(model, 1).edx, 0x0789a379u) << "recordings and new runs show the same";
  EXPECT_EQ(leaf(model, 1).ecx, 1u << 13 | 1u << 31);
  EXPECT_EQ(leaf(model, 0).eax, 1u) << "no leaf 7";
  EXPECT_EQ(leaf(model, 0x80000001).ecx, 1u);
  EXPECT_EQ(leaf(model, 0x80000001).edx, 1u << 11 | 1u << 20 | 1u << 29);
  EXPECT_EQ(leaf(model, 0x80000007).edx, 1u << 8);
}

}  // namespace
}  // namespace reprise::vmm
