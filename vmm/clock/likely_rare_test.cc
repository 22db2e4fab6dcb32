#include "vmm/clock/likely_rare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace reprise::vmm {
namespace {

// 2 MiB at 2 MiB that user mode may execute, and the 2 MiB behind it, which it may not: code, and a stack.
class Program : public x86::PhysicalReader {
 public:
  static constexpr uint64_t kLarge = 2 << 20;
  static constexpr Gva kCode{kLarge}, kStack{2 * kLarge};

  Program() : ram_(3 * kLarge) {
    constexpr uint64_t kTable = 0x7, kLargePage = 0x87, kNoExecute = 1ull << 63;
    put(0x1000, 0x2000 | kTable);
    put(0x2000, 0x3000 | kTable);
    put(0x3000 + 8, kLarge | kLargePage);
    put(0x3000 + 16, 2 * kLarge | kLargePage | kNoExecute);
    state.cr0 = x86::kCr0Paging | x86::kCr0ProtectionEnable;
    state.cr3 = 0x1000;
    state.cr4 = x86::kCr4PhysicalAddressExtension;
    state.efer = x86::kEferLongModeActive | x86::kEferNoExecute;
    state.cs.long_mode = true;
    state.cpl = 3;
    state.registers[x86::kRsp] = kStack.raw;
  }
  void put(uint64_t at, uint64_t word) { std::memcpy(&ram_[at], &word, sizeof word); }
  void code(std::vector<uint8_t> bytes) { std::ranges::copy(bytes, ram_.begin() + kLarge); }

  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override {
    if (gpa.raw + out.size() > ram_.size()) return false;
    std::copy_n(ram_.begin() + static_cast<ptrdiff_t>(gpa.raw), out.size(), out.begin());
    return true;
  }
  [[nodiscard]] std::vector<Gva> rare(uint64_t offset) {
    state.rip = kCode.raw + offset;
    const x86::LinearMemory memory({state.cr0, state.cr3, state.cr4, state.efer}, *this);
    return likely_rare(state, memory);
  }
  x86::CpuState state;

 private:
  std::vector<uint8_t> ram_;
};

TEST(LikelyRareTest, LoopsAroundTheInstructionAndWhatIsBehindThem) {
  Program program;
  // 0: nop; 1: nop; 2: dec eax; 4: jnz 1; 6: dec ecx; 8: jnz 0; 10: ud2
  program.code({0x90, 0x90, 0xff, 0xc8, 0x75, 0xfb, 0xff, 0xc9, 0x75, 0xf6, 0x0f, 0x0b});
  const auto found = program.rare(2);
  const std::vector expected = {Program::kCode + 1, Program::kCode + 6, Program::kCode, Program::kCode + 10};
  EXPECT_EQ(found, expected);
}

TEST(LikelyRareTest, ReturnAddressesOnTheStackBehindCalls) {
  Program program;
  // 8: call +0; 13: call rax; 15: ud2
  program.code({0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xe8, 0, 0, 0, 0, 0xff, 0xd0, 0x0f, 0x0b});
  program.put(Program::kStack.raw, Program::kCode.raw + 13);
  program.put(Program::kStack.raw + 8, Program::kCode.raw + 14);  // behind no call
  program.put(Program::kStack.raw + 16, Program::kCode.raw + 15);
  program.put(Program::kStack.raw + 24, Program::kStack.raw + 13);  // not code
  program.put(Program::kStack.raw + 32, Program::kCode.raw + 13);
  EXPECT_EQ(program.rare(15), (std::vector{Program::kCode + 13, Program::kCode + 15}));
}

TEST(LikelyRareTest, NothingInAProgramThatReadsItsCode) {
  Program program;
  // 0: mov al, [rdi]; 2: inc rdi; 5: jmp 0
  program.code({0x8a, 0x07, 0x48, 0xff, 0xc7, 0xeb, 0xf9, 0x0f, 0x0b});
  program.state.registers[x86::kRdi] = Program::kStack.raw;
  EXPECT_FALSE(program.rare(2).empty());
  program.state.registers[x86::kRdi] = Program::kCode.raw + 100;
  EXPECT_TRUE(program.rare(0).empty());
}

}  // namespace
}  // namespace reprise::vmm
