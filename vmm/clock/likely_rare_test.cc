#include "vmm/clock/likely_rare.h"

#include <gtest/gtest.h>

#include <vector>

#include "vmm/clock/user_program_fake.h"

namespace reprise::vmm {
namespace {

class Program : public UserProgramFake {
 public:
  [[nodiscard]] std::vector<Gva> rare(uint64_t offset) {
    state.rip = kCode.raw + offset;
    return likely_rare(state, memory());
  }
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
