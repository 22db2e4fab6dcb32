// Which differences between two vCPUs a digest shows, and which it must not show.
#include "vmm/register_digest.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "vmm/kvm/msr_filter.h"

namespace reprise::vmm {
namespace {

kvm_regs some_registers() {
  kvm_regs regs{};
  regs.rax = 1;
  regs.rip = 0x100000;
  regs.rflags = 0x202;
  return regs;
}

uint64_t digest_of(const kvm_regs& regs) {
  return digest_registers(regs, 0);
}

// kvm_regs is 18 numbers in a row. Source: Linux, arch/x86/include/uapi/asm/kvm.h.
TEST(RegisterDigestTest, DiffersInEachBitOfEachRegister) {
  const uint64_t same = digest_of(some_registers());
  EXPECT_EQ(digest_of(some_registers()), same);
  for (size_t i = 0; i < offsetof(kvm_regs, rflags) / 8; ++i) {
    for (const unsigned bit : {0u, 31u, 63u}) {
      kvm_regs regs = some_registers();
      uint64_t value = 0;
      std::memcpy(&value, reinterpret_cast<const char*>(&regs) + i * 8, 8);
      value ^= 1ull << bit;
      std::memcpy(reinterpret_cast<char*>(&regs) + i * 8, &value, 8);
      EXPECT_NE(digest_of(regs), same) << "register " << i << ", bit " << bit;
    }
  }
}

TEST(RegisterDigestTest, IgnoresArithmeticFlagsAndResumeFlagOnly) {
  for (unsigned bit = 0; bit < 64; ++bit) {
    const bool ignored = bit == 0 || bit == 2 || bit == 4 || bit == 6 || bit == 7 || bit == 11 || bit == 16;
    kvm_regs regs = some_registers();
    regs.rflags ^= 1ull << bit;
    EXPECT_EQ(digest_of(regs) == digest_of(some_registers()), ignored) << "flag " << bit;
  }
}

TEST(RegisterDigestTest, VouchesForTheStopsBefore) {
  kvm_regs other = some_registers();
  other.rcx = 9;
  EXPECT_NE(digest_registers(some_registers(), digest_of(other)),
            digest_registers(some_registers(), digest_of(some_registers())));
}

class VcpuDigestTest : public testing::Test {
 protected:
  [[nodiscard]] uint64_t digest() const { return digest_vcpu(regs_, sregs_, fpu_, 0); }

  kvm_regs regs_ = some_registers();
  kvm_sregs sregs_{};
  kvm_fpu fpu_{};
};

TEST_F(VcpuDigestTest, DiffersInGeneralControlSegmentAndFloatingPointRegisters) {
  const uint64_t same = digest();
  const auto expect_shown = [&](auto& value, const char* name) {
    const auto before = value;
    value ^= 1;
    EXPECT_NE(digest(), same) << name;
    value = before;
  };
  expect_shown(regs_.r15, "r15");
  expect_shown(sregs_.cr0, "cr0");
  expect_shown(sregs_.cr2, "cr2");
  expect_shown(sregs_.cr3, "cr3");
  expect_shown(sregs_.cr4, "cr4");
  expect_shown(sregs_.efer, "efer");
  expect_shown(sregs_.gdt.base, "gdt");
  expect_shown(sregs_.idt.limit, "idt");
  expect_shown(sregs_.fs.base, "fs");
  expect_shown(sregs_.cs.selector, "cs");
  expect_shown(sregs_.ldt.limit, "ldt");
  expect_shown(fpu_.mxcsr, "mxcsr");
  expect_shown(fpu_.fpr[7][9], "st7");
  expect_shown(fpu_.xmm[15][15], "xmm15");
  EXPECT_EQ(digest(), same);
}

TEST_F(VcpuDigestTest, IgnoresWhatIsNotArchitectural) {
  sregs_.gs.unusable = 1;
  const uint64_t same = digest();
  sregs_.gs.limit = 0xffff;
  sregs_.gs.type = 3;
  sregs_.cs.type ^= 1;
  EXPECT_EQ(digest(), same);
}

TEST(SystemRegistersDigestTest, DiffersInEachRegisterButDr6) {
  const kvm_debugregs debug{};
  const std::vector<uint64_t> msrs = {1, 2, 3};
  const uint64_t same = digest_system_registers(debug, 1, msrs, 0);
  kvm_debugregs other = debug;
  other.db[3] = 1;
  EXPECT_NE(digest_system_registers(other, 1, msrs, 0), same);
  other = debug;
  other.dr7 = 1;
  EXPECT_NE(digest_system_registers(other, 1, msrs, 0), same);
  other = debug;
  other.dr6 = 1;
  EXPECT_EQ(digest_system_registers(other, 1, msrs, 0), same);
  EXPECT_NE(digest_system_registers(debug, 3, msrs, 0), same);
  EXPECT_NE(digest_system_registers(debug, 1, std::vector<uint64_t>{1, 2, 4}, 0), same);
  EXPECT_NE(digest_system_registers(debug, 1, msrs, 1), same);
}

TEST(ComparedMsrsTest, OfThoseForSysenterOnlyWhatAmdKeepsIsCompared) {
  constexpr uint32_t kSysenterEsp = 0x175, kLongTarget = 0xc0000082;
  EXPECT_EQ(compared_bits(kSysenterEsp), 0xffff'ffff);
  EXPECT_EQ(compared_bits(kLongTarget), ~uint64_t{0});
}

}  // namespace
}  // namespace reprise::vmm
