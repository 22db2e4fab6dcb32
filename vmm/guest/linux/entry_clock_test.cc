#include "vmm/guest/linux/entry_clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/device/device_context_fake.h"
#include "vmm/guest/linux/kallsyms_fake.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest/linux/linux_kernel.h"
#include "vmm/guest/linux/loaded_kernel_fake.h"
#include "vmm/kvm/kvm_vcpu_fake.h"

namespace reprise::vmm {
namespace {

using ::testing::HasSubstr;
using Code = std::vector<uint8_t>;

constexpr uint64_t kEntry = 0x00, kCaller = 0x10, kInit = 0x60, kModuleInit = 0x70, kTraced = 0x80,
                   kEnd = 0x90;

// A kernel that can trace functions; change it, then prepare().
class EntryClockTest : public ::testing::Test {
 protected:
  EntryClockTest() {
    code_[kEntry] = 0xc3;
    // call __fentry__
    code_[kTraced] = 0xe8;
    const auto back = static_cast<int32_t>(kEntry) - static_cast<int32_t>(kTraced + 5);
    std::memcpy(&code_[kTraced + 1], &back, sizeof back);
    symbols_ = {{"T__fentry__", FakeKernel::kVirtual + kEntry},
                {"Tftrace_caller", FakeKernel::kVirtual + kCaller},
                {"Tftrace_init", FakeKernel::kVirtual + kInit},
                {"Tftrace_module_init", FakeKernel::kVirtual + kModuleInit},
                {"Tvfs_read", FakeKernel::kVirtual + kTraced},
                {"Tend", FakeKernel::kVirtual + kEnd}};
  }
  Result<EntryClock> prepare() {
    // The tables are found where there are many symbols.
    for (uint32_t i = 0; i < 300; ++i)
      symbols_.push_back({"Tother_" + std::to_string(i), FakeKernel::kVirtual + kEnd + i});
    const FakeKernel kernel({{code_}, {fake_kallsyms(symbols_, KallsymsLayout::kOffsetsFirst), SHF_ALLOC}});
    const Code loaded = kernel.segment();
    ram_.assign(FakeKernel::kAddress + loaded.size(), 0);
    std::ranges::copy(loaded, ram_.begin() + FakeKernel::kAddress);
    before_ = ram_;
    return patch_kernel(kernel.elf(), ram_, true).value().clock;
  }
  std::span<const uint8_t> at(uint64_t place, size_t bytes) {
    return std::span(ram_).subspan(FakeKernel::kAddress + place, bytes);
  }
  void expect_refused(std::string_view why) {
    const auto clock = prepare();
    ASSERT_FALSE(clock);
    EXPECT_THAT(clock.error().message, HasSubstr(why));
    EXPECT_EQ(ram_, before_);
  }

  Code code_ = Code(kEnd, 0x90);
  std::vector<FakeSymbol> symbols_;
  Code ram_, before_;
};

TEST_F(EntryClockTest, TracerStaysAwayAndTheStubIsInPlace) {
  const auto clock = prepare();
  ASSERT_TRUE(clock) << clock.error().message;
  EXPECT_EQ(at(kInit, 1)[0], 0xc3);
  EXPECT_EQ(at(kModuleInit, 1)[0], 0xc3);
  EXPECT_EQ(at(kCaller, 2)[0], 0x49);  // movabs r11
  EXPECT_EQ(at(kCaller + 26, 2)[0], 0xe6);
  EXPECT_EQ(at(kCaller + 26, 2)[1], kTickPort);
  EXPECT_EQ(at(kCaller + 32, 1)[0], 0xc3);
  EXPECT_EQ(at(kCaller + 33, 1)[0], 0x90);  // no byte more
}

TEST_F(EntryClockTest, JumpIsNotThereBeforeTheClockPageIsMapped) {
  const auto clock = prepare();
  ASSERT_TRUE(clock);
  EXPECT_EQ(clock->entry, Gpa(FakeKernel::kAddress + kEntry));
  EXPECT_EQ(at(kEntry, 1)[0], 0xc3);
  int32_t distance = 0;
  std::memcpy(&distance, &clock->jump[1], sizeof distance);
  EXPECT_EQ(clock->jump[0], 0xe9);
  EXPECT_EQ(distance, static_cast<int32_t>(kCaller - (kEntry + 5)));
}

// Any code may write to the port; only the stub's instruction is a tick.
TEST_F(EntryClockTest, OnlyTheStubTicks) {
  auto clock = prepare();
  ASSERT_TRUE(clock);
  EXPECT_EQ(clock->tick, Gpa(FakeKernel::kAddress + kCaller + 26));
  EXPECT_EQ(clock->spare, Gpa(FakeKernel::kAddress + kCaller + 33));
  EXPECT_EQ(clock->spare_bytes, kInit - kCaller - 33);
  KernelPatches patches;
  patches.clock = clock;
  const LinuxKernel kernel(std::move(patches));
  const auto ram = GuestMemory::create({.bytes = 16 * kPageSize}, false).value();
  const auto view = ViewMemory::create(*ram, {}, ViewKind::kUnprotected, 0).value();
  KvmVcpuFake kvm;  // without paging
  FakeDeviceContext values;
  const ExitedVcpu vcpu{VcpuId(0), kvm, *view, values};
  kvm.calls().regs.rip = clock->tick.raw;
  EXPECT_TRUE(kernel.is_tick(kTickPort, vcpu).value());
  EXPECT_FALSE(kernel.is_tick(kPausePort, vcpu).value());
  kvm.calls().regs.rip += 1;
  EXPECT_FALSE(kernel.is_tick(kTickPort, vcpu).value());
}

TEST_F(EntryClockTest, ReturnThunkIsAReturnToo) {
  code_[kEntry] = 0xe9;
  EXPECT_TRUE(prepare());
}

TEST_F(EntryClockTest, KernelWithoutTracingIsRefused) {
  symbols_.erase(symbols_.begin() + 1);
  expect_refused("it has no ftrace_caller()");
}

TEST_F(EntryClockTest, OtherEntryIsRefused) {
  code_[kEntry] = 0x55;
  expect_refused("__fentry__() is none that only returns");
}

TEST_F(EntryClockTest, NoOperationsInsteadOfCallsAreRefused) {
  code_[kTraced] = 0x0f;
  expect_refused("do not begin with calls");
}

TEST_F(EntryClockTest, ShortStubIsRefused) {
  symbols_.push_back({"Tinside", FakeKernel::kVirtual + kCaller + 32});
  expect_refused("ftrace_caller() has 32 bytes, needed are 33");
}

TEST_F(EntryClockTest, KernelWithoutSymbolsIsRefused) {
  symbols_.clear();
  const FakeKernel kernel({{code_}});
  const Code loaded = kernel.segment();
  ram_.assign(FakeKernel::kAddress + loaded.size(), 0);
  const auto clock = patch_kernel(kernel.elf(), ram_, true).value().clock;
  ASSERT_FALSE(clock);
  EXPECT_THAT(clock.error().message, HasSubstr("no symbols"));
}

}  // namespace
}  // namespace reprise::vmm
