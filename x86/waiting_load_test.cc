#include "x86/waiting_load.h"

#include <gtest/gtest.h>

#include "x86/access_machine_fake.h"

namespace reprise::x86 {
namespace {

// `code` at the machine's rip.
bool waits(const char* code) {
  Machine m = machine_64();
  m.memory.write(m.cpu.rip, bytes_of(code));
  const LinearMemory memory(m.cpu.paging(), m.memory);
  return is_waiting_load(m.cpu, memory);
}

TEST(WaitingLoadTest, LoopThatPausesWaits) {
  // 1: mov (%rdx),%eax; test %eax,%eax; je out; pause; jmp 1b; out: ret
  EXPECT_TRUE(waits("8b 02 85 c0 74 04 f3 90 eb f6 c3"));
}

TEST(WaitingLoadTest, LoadInFrontOfTheLoopWaits) {
  // mov (%rdx),%eax; test %eax,%eax; je out; 1: pause; mov (%rdx),%eax; test %eax,%eax; jne 1b; out: ret
  EXPECT_TRUE(waits("8b 02 85 c0 74 08 f3 90 8b 02 85 c0 75 f8 c3"));
}

TEST(WaitingLoadTest, CompareWithMemoryWaits) {
  // 1: cmp %esi,4(%rdx); je out; pause; jmp 1b; out: ret
  EXPECT_TRUE(waits("39 72 04 74 04 f3 90 eb f7 c3"));
}

TEST(WaitingLoadTest, StoreToAFixedAddressDoesNotCount) {
  // 1: mov (%rdx),%eax; test %eax,%eax; je out; pause; mov %rax,0x100000; jmp 1b; out: ret
  EXPECT_TRUE(waits("8b 02 85 c0 74 0c f3 90 48 89 04 25 00 00 10 00 eb ee c3"));
}

TEST(WaitingLoadTest, LoopWithoutPauseDoesNotWait) {
  // 1: mov (%rdx),%eax; test %eax,%eax; jne 1b; ret
  EXPECT_FALSE(waits("8b 02 85 c0 75 fa c3"));
}

TEST(WaitingLoadTest, LoopThatStoresDoesNotWait) {
  // 1: mov (%rdx),%eax; inc %eax; mov %eax,(%rdx); pause; jmp 1b
  EXPECT_FALSE(waits("8b 02 ff c0 89 02 f3 90 eb f6"));
}

TEST(WaitingLoadTest, LoopOverOtherAddressesDoesNotWait) {
  // 1: mov (%rdx),%eax; add $4,%rdx; pause; jmp 1b
  EXPECT_FALSE(waits("8b 02 48 83 c2 04 f3 90 eb f6"));
}

TEST(WaitingLoadTest, LoadOfSomethingElseDoesNotWait) {
  // mov (%rdx),%eax; 1: pause; mov 8(%rdx),%eax; test %eax,%eax; jne 1b; ret
  EXPECT_FALSE(waits("8b 02 f3 90 8b 42 08 85 c0 75 f7 c3"));
}

TEST(WaitingLoadTest, QueueLockThatLooksWhetherItIsTheLastWaits) {
  // mov (%rbx),%rax; test %rax,%rax; jne out; lock cmpxchg %rcx,(%rdx); je out;
  // 1: pause; mov (%rbx),%rax; test %rax,%rax; je 1b; out: ret
  EXPECT_TRUE(waits("48 8b 03 48 85 c0 75 11 f0 48 0f b1 0a 74 0a f3 90 48 8b 03 48 85 c0 74 f6 c3"));
}

TEST(WaitingLoadTest, StoreDoesNotWait) {
  // 1: mov %eax,(%rdx); pause; mov (%rdx),%eax; jmp 1b
  EXPECT_FALSE(waits("89 02 f3 90 8b 02 eb f8"));
}

}  // namespace
}  // namespace reprise::x86
