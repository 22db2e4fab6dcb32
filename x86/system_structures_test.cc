// What the processor keeps in memory, read through the guest's page tables: bytes, gates, frames.
#include <gtest/gtest.h>

#include "x86/access_machine_fake.h"
#include "x86/exception_frame.h"
#include "x86/interrupt_gate.h"
#include "x86/linear_memory.h"

namespace reprise::x86 {
namespace {

constexpr uint64_t kTable = 0x8000;
constexpr uint64_t kPresentWritableUser = 7;

// Linear pages 0 to 511 through four levels: page n is at n + 10h, but for those that a test takes away.
class LinearMemoryTest : public ::testing::Test {
 protected:
  LinearMemoryTest() {
    for (uint64_t level = 0; level < 3; ++level)
      physical_.write(kTable + level * kPageSize, (kTable + (level + 1) * kPageSize) | kPresentWritableUser);
    for (uint64_t page = 0; page < 64; ++page)
      map(page, ((page + 0x10) << kPageShift) | kPresentWritableUser);
  }
  void map(uint64_t page, uint64_t entry) { physical_.write(kTable + 3 * kPageSize + 8 * page, entry); }

  FakePhysicalReader physical_{1 << 20};
  LinearMemory memory_{{.cr0 = kCr0ProtectionEnable | kCr0Paging | kCr0WriteProtect,
                        .cr3 = kTable,
                        .cr4 = kCr4PhysicalAddressExtension,
                        .efer = kEferLongModeActive},
                       physical_};
};

TEST_F(LinearMemoryTest, TranslatesThroughTheGuestsTables) {
  EXPECT_EQ(memory_.translate(Gva(0x2345)), Gpa(0x12345));
  map(2, 0);
  EXPECT_EQ(memory_.translate(Gva(0x2345)), std::nullopt);
}

TEST_F(LinearMemoryTest, RightsOfTheAccessDecide) {
  map(3, 0x13005);  // read-only, user
  map(4, 0x14003);  // supervisor
  EXPECT_TRUE(memory_.translate(Gva(0x3000)).has_value());
  EXPECT_FALSE(memory_.translate(Gva(0x3000), {.write = true}).has_value());
  EXPECT_TRUE(memory_.translate(Gva(0x4000)).has_value());
  EXPECT_FALSE(memory_.translate(Gva(0x4000), {.user = true}).has_value());
}

TEST_F(LinearMemoryTest, ReadsPiecesOfPagesThatAreNotNeighbours) {
  map(3, 0x20000 | kPresentWritableUser);
  physical_.write(0x12ffc, 0x44332211, 4);
  physical_.write(0x20000, 0x88776655, 4);
  uint64_t value = 0;
  EXPECT_EQ(memory_.read(Gva(0x2ffc), {reinterpret_cast<uint8_t*>(&value), sizeof value}), 8u);
  EXPECT_EQ(value, 0x8877665544332211u);
  EXPECT_FALSE(physical_.crossed_page);
}

TEST_F(LinearMemoryTest, ReadsUpToTheFirstByteThatCannotBeRead) {
  std::array<uint8_t, 16> out{};
  map(3, 0);
  EXPECT_EQ(memory_.read(Gva(0x2ff8), out), 8u);
  map(3, 0x13007);
  physical_.hide(0x13);  // mapped, but the view has no right to it
  EXPECT_EQ(memory_.read(Gva(0x2ff8), out), 8u);
  EXPECT_EQ(memory_.read(Gva(0x3000), out), 0u);
}

TEST_F(LinearMemoryTest, LeavesAccessedBitsAlone) {
  uint64_t before = 0, after = 0;
  std::array<uint8_t, 8> out{};
  ASSERT_TRUE(physical_.read(Gpa(kTable), {reinterpret_cast<uint8_t*>(&before), sizeof before}));
  memory_.read(Gva(0x2000), out);
  ASSERT_TRUE(physical_.read(Gpa(kTable), {reinterpret_cast<uint8_t*>(&after), sizeof after}));
  EXPECT_EQ(before, after);
}

class InterruptGateTest : public LinearMemoryTest {
 protected:
  // The IDT is at linear 5000h. Handler ffffffff'81001234h, selector 10h, IST 3.
  void write_gate(uint8_t vector, bool present) {
    physical_.write(0x15000 + vector * kGateBytes, 0x8100'0e03'0010'1234 | (present ? 1ull << 47 : 0));
    physical_.write(0x15008 + vector * kGateBytes, 0xffff'ffff);
  }
  static constexpr DescriptorTable kIdtRegister{0x5000, 14 * kGateBytes + kGateBytes - 1};
};

TEST_F(InterruptGateTest, FieldsAreAssembled) {
  write_gate(14, true);
  const auto gate = read_gate(memory_, kEferLongModeActive, kIdtRegister, 14);
  ASSERT_TRUE(gate.has_value());
  EXPECT_EQ(gate->handler, Gva(0xffff'ffff'8100'1234));
  EXPECT_EQ(gate->selector, 0x10);
  EXPECT_EQ(gate->stack, 3);
}

TEST_F(InterruptGateTest, AbsentGateBeyondTheLimitOrOutsideLongModeIsNone) {
  write_gate(13, false);
  EXPECT_FALSE(read_gate(memory_, kEferLongModeActive, kIdtRegister, 13).has_value());
  write_gate(15, true);
  EXPECT_FALSE(read_gate(memory_, kEferLongModeActive, kIdtRegister, 15).has_value());
  write_gate(14, true);
  EXPECT_FALSE(read_gate(memory_, 0, kIdtRegister, 14).has_value());
}

TEST_F(InterruptGateTest, TableThatIsNotMappedHasNoGates) {
  write_gate(14, true);
  map(5, 0);
  EXPECT_FALSE(read_gate(memory_, kEferLongModeActive, kIdtRegister, 14).has_value());
}

using ExceptionFrameTest = LinearMemoryTest;

TEST_F(ExceptionFrameTest, FieldsStandInTheOrderInWhichTheyArePopped) {
  for (uint64_t i = 0; i < 6; ++i) physical_.write(0x12fe0 + 8 * i, 0x100 + i);
  map(3, 0x13007);
  const auto frame = read_exception_frame(memory_, Gva(0x2fe0));
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->error, 0x100u);
  EXPECT_EQ(frame->rip, 0x101u);
  EXPECT_EQ(frame->cs, 0x102u);
  EXPECT_EQ(frame->rflags, 0x103u);
  EXPECT_EQ(frame->rsp, 0x104u);
  EXPECT_EQ(frame->ss, 0x105u);
}

TEST_F(ExceptionFrameTest, FrameThatIsPartlyUnmappedIsNone) {
  map(3, 0);
  EXPECT_FALSE(read_exception_frame(memory_, Gva(0x2fe0)).has_value());
}

}  // namespace
}  // namespace reprise::x86
