#include "vmm/guest/linux/program_name.h"

#include <gtest/gtest.h>

#include <string_view>

#include "vmm/clock/user_program_fake.h"

namespace reprise::vmm {
namespace {

// As execve() leaves it: the name, its zero, eight zeros, and the end of the stack.
class Stack : public UserProgramFake {
 public:
  explicit Stack(std::string_view name) {
    const uint64_t end = kStack.raw + kLarge;
    text(end - 8 - 1 - name.size(), name);
  }
  [[nodiscard]] std::string name() const { return program_name(memory(), kStack + 100); }
};

TEST(ProgramName, IsAtTheEndOfTheStack) {
  EXPECT_EQ(Stack("/usr/bin/sort").name(), "/usr/bin/sort");
}

TEST(ProgramName, IsNotMadeUp) {
  EXPECT_EQ(Stack("").name(), "");
  EXPECT_EQ(Stack("/bin/\x1b[31m").name(), "");
  EXPECT_EQ(Stack(std::string(5000, 'x')).name(), "");  // longer than what is looked at
  Stack other("/bin/true");
  other.put(Stack::kStack.raw + Stack::kLarge - 8, 1);  // some other memory
  EXPECT_EQ(other.name(), "");
  EXPECT_EQ(program_name(other.memory(), Gva(0)), "");
  EXPECT_EQ(program_name(other.memory(), Gva(UINT64_MAX)), "");
}

}  // namespace
}  // namespace reprise::vmm
