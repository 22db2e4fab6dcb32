// Access decoding in the other modes, with paging, and of exception delivery.
#include <gtest/gtest.h>

#include "x86/access_machine_fake.h"

namespace reprise::x86 {
namespace {

TEST(AccessModesTest, ProtectedModeAddsSegmentBasesAndHas32BitStacks) {
  const auto base = [](Segment CpuState::*segment, uint64_t value) {
    return [=](Machine& m) { (m.cpu.*segment).base = value; };
  };
  expect_rows(
      machine_32(),
      {
          {"mov ecx, [eax]", "8b 08", "1r 10r"},
          {"mov ecx, [eax] with a DS base", "8b 08", "1r 70r", base(&CpuState::ds, 0x60000)},
          {"mov ecx, [ebp] uses SS", "8b 4d 00", "1r 75r", base(&CpuState::ss, 0x60000)},
          {"mov ecx, cs:[eax]", "2e 8b 08", "40r 4fr", [](Machine& m) { m.cpu.cs.base = 0x3f000; }},
          {"base + offset wraps at 4 GiB", "8b 08", "1r fr", base(&CpuState::ds, 0xffff'f000)},
          {"a16 mov ecx, [bx+si]", "67 8b 08", "1r 4r", all({with(kRbx, 0x50fff), with(kRsi, 0x3801)})},
          {"pushad", "60", "1r 13w 14w", with(kRsp, 0x14010)},
          {"popad", "61", "1r 14r 15r", with(kRsp, 0x14ff0)},
          {"push eax at a page start", "50", "1r 13w", with(kRsp, 0x14000)},
          {"push eax at esp = 0 wraps", "50", "1r fffffw", with(kRsp, 0)},
          {"push ax with a 16-bit stack", "66 50", "1r 7fw",
           all({with(kRsp, 0x9'0000),
                [](Machine& m) {
                  m.cpu.ss.default_32 = false;
                  m.cpu.ss.base = 0x70000;
                }})},
          {"call far 8:0", "9a 00 00 00 00 08 00", "1r 14w 50r"},
          {"jmp far 0x28:0", "ea 00 00 00 00 28 00", "1r 50w"},
          {"iretd to the same level reads three items", "cf", "1r 14r 50r",
           all({with(kRsp, 0x14ff4), stored(0x14ff8, kCode0)})},
          {"iretd to user reads five", "cf", "1r 14r 15r 50r",
           all({with(kRsp, 0x14ff4), stored(0x14ff8, kCode3), stored(0x15004, kData3)})},
          {"int 0x80 at CPL 0", "cd 80", "1r 14w 50r 51r"},
          {"int 0x80 at CPL 3: ss0:esp0", "cd 80", "1r 50r 51r 52r 53w", user},
          {"into without overflow", "ce", "1r"},
          {"into with overflow", "ce", "1r 14w 50r 51r", flags(kOverflowFlag)},
          {"lds ecx, [eax]", "c5 08", "1r 10r 50r", stored(0x10804, kData0)},
          {"pop ds", "1f", "1r 14r 50r", stored(0x14800, kData0)},
          {"bound ecx, [eax]", "62 08", "1r 10r"},
          {"lgdt [0x10ffa] has six bytes", "0f 01 10", "1r 10r", with(kRax, 0x10ffa)},
          {"leave", "c9", "1r 15r"},
      });
}

TEST(AccessModesTest, RealModeAddsParagraphsAndWrapsOffsets) {
  expect_rows(machine_16(), {
                                {"mov ax, [bx]", "8b 07", "20r 43r"},
                                {"mov ax, [bp+si] uses SS", "8b 02", "20r 3cr"},
                                {"mov ax, [0x1234]", "a1 34 12", "20r 41r"},
                                {"mov ax, [bx+0xffff] wraps at 64 KiB", "8b 87 ff ff", "20r 43r"},
                                {"mov ax, fs:[si]", "64 8b 04", "20r 66r"},
                                {"a32 mov ax, [esi]", "67 8b 06", "20r 46r"},
                                {"push ax", "50", "20r 34w"},
                                {"push ax at sp = 0 wraps", "50", "20r 3fw", with(kRsp, 0)},
                                {"pusha over a page end", "60", "20r 33w 34w", with(kRsp, 0x4008)},
                                {"call rel16", "e8 00 00", "20r 34w"},
                                {"call far 1234:5678", "9a 78 56 34 12", "20r 34w"},
                                {"retf", "cb", "20r 34r"},
                                {"iret over a page end", "cf", "20r 34r 35r", with(kRsp, 0x4ffc)},
                                {"int 0x10 reads the vector table", "cd 10", "0r 20r 34w"},
                                {"int 0x10 pushes six bytes", "cd 10", "0r 20r 33w 34w", with(kRsp, 0x4004)},
                                {"mov ds, ax reads no descriptor", "8e d8", "20r"},
                                {"lds ax, [si]", "c5 04", "20r 46r"},
                                {"rep movsw", "f3 a5", "20r 46r 57w"},
                                {"rep movsw, cx = 0", "f3 a5", "20r", with(kRcx, 0x1'0000)},
                                {"xlatb", "d7", "20r 43r"},
                                {"enter 0x100, 0", "c8 00 01 00", "20r 34w"},
                                {"lidt [bx]", "0f 01 1f", "20r 43r"},
                                {"in al, dx", "ec", "20r"},
                            });
}

// --- what is not followed ---

void expect_unsupported(const Machine& machine, const Row& row, const char* word) {
  const auto set = decode(machine, row);
  ASSERT_FALSE(set.has_value()) << row.instruction;
  EXPECT_EQ(set.error().code, ErrorCode::kGuest);
  EXPECT_NE(set.error().message.find(word), std::string::npos) << set.error().message;
}

TEST(AccessModesTest, WhatCannotBeFollowedIsAnErrorThatNamesIt) {
  expect_unsupported(machine_64(), {"vpgatherdd", "62 f2 7d 49 90 04 08", ""}, "vpgatherdd at rip 0x1000");
  expect_unsupported(machine_64(), {"vpgatherdd ymm", "c4 e2 6d 90 04 08", ""}, "vpgatherdd");
  expect_unsupported(machine_64(), {"vpscatterdd", "62 f2 7d 49 a0 04 08", ""}, "vpscatterdd");
  expect_unsupported(machine_64(), {"int 0x82 through a task gate", "cd 82", ""}, "task gate");
  expect_unsupported(machine_32(), {"jmp far to a TSS", "ea 00 00 00 00 30 00", ""}, "task switch");
}

// --- with paging on ---

// Tables at pages 80 to 83 map the first 2 MiB to themselves with 4 KiB pages, all bits set.
Machine machine_paged() {
  Machine m = machine_64();
  m.cpu.cr0 |= kCr0Paging | kCr0WriteProtect;
  m.cpu.cr4 = kCr4PhysicalAddressExtension;
  m.cpu.cr3 = 0x80000;
  m.memory.write(0x80000, 0x81067);
  m.memory.write(0x81000, 0x82067);
  m.memory.write(0x82000, 0x83067);
  for (uint64_t page = 0; page < 512; ++page) m.memory.write(0x83000 + page * 8, page << 12 | 0x67);
  return m;
}
Change leaf(uint64_t page, uint64_t entry) {
  return stored(0x83000 + page * 8, entry);
}

TEST(AccessPagingTest, TablesOnTheWayAreListed) {
  expect_rows(
      machine_paged(),
      {
          {"mov [rax], ecx", "89 08", "1r 10w 80r 81r 82r 83r"},
          {"mov [rax], ecx to a page mapped elsewhere", "89 08", "1r 77w 80r 81r 82r 83r",
           leaf(0x10, 0x77067)},
          {"mov [rax], ecx sets the dirty bit", "89 08", "1r 10w 80r 81r 82r 83w", leaf(0x10, 0x10027)},
          {"mov ecx, [rax] does not", "8b 08", "1r 10r 80r 81r 82r 83r", leaf(0x10, 0x10027)},
          {"mov ecx, [rax] sets the accessed bit", "8b 08", "1r 10r 80r 81r 82r 83w", leaf(0x10, 0x10007)},
          {"a walker that writes", "8b 08", "1r 10r 80w 81w 82w 83w",
           [](Machine& m) { m.options.walk_writes = true; }},
          {"a store into a page table", "89 08", "1r 80r 81r 82r 83w", with(kRax, 0x83800)},
      });
}

TEST(AccessPagingTest, NotPresentPageRaisesPageFaultAndListsItsDelivery) {
  const auto set = decode(machine_paged(), {"mov ecx, [rax]", "8b 08", "", leaf(0x10, 0)});
  EXPECT_TRUE(set->raises_page_fault());
  EXPECT_EQ(set->fault_address, Gva(0x10800));
  EXPECT_EQ(to_string(set->pages()), "1r 14w 50r 51r 80r 81r 82r 83r");
}

TEST(AccessPagingTest, SecondHalfNotPresentNamesItsFirstByte) {
  const auto set =
      decode(machine_paged(), {"mov ecx, [rax]", "8b 08", "", all({with(kRax, 0x10ffe), leaf(0x11, 0)})});
  EXPECT_TRUE(set->raises_page_fault());
  EXPECT_EQ(set->fault_address, Gva(0x11000));
}

TEST(AccessPagingTest, FetchFromNotPresentPageRaisesPageFault) {
  const auto set = decode(machine_paged(), {"nop", "90", "", leaf(1, 0)});
  EXPECT_TRUE(set->raises_page_fault());
  EXPECT_EQ(set->fault_address, Gva(0x1000));
}

TEST(AccessPagingTest, UserAccessToSupervisorPageRaisesPageFault) {
  const auto set = decode(machine_paged(), {"mov ecx, [rax]", "8b 08", "", all({user, leaf(0x10, 0x10063)})});
  EXPECT_TRUE(set->raises_page_fault());
  EXPECT_EQ(to_string(set->pages()), "1r 50r 51r 52r 53w 80r 81r 82r 83r");
}

TEST(AccessPagingTest, DescriptorTablesAreSupervisorAccessesAtCpl3) {
  const auto set = decode(
      machine_paged(),
      {"int 0x80", "cd 80", "",
       all({user, leaf(0x50, 0x50063), leaf(0x51, 0x51063), leaf(0x52, 0x52063), leaf(0x53, 0x53063)})});
  EXPECT_FALSE(set->exception.has_value());
  EXPECT_EQ(to_string(set->pages()), "1r 50r 51r 52r 53w 80r 81r 82r 83r");
}

TEST(AccessPagingTest, MaskedTailOnUnmappedPageIsNoCertainFault) {
  const auto set = decode(machine_paged(), {"vmovdqu32 [rax]{k1}, zmm0", "62 f1 7e 49 7f 00", "",
                                            all({with(kRax, 0x10fc4), leaf(0x11, 0)})});
  EXPECT_FALSE(set->exception.has_value());
  EXPECT_EQ(to_string(set->pages()), "1r 10w 14w 50r 51r 80r 81r 82r 83r");  // with delivery, should it fault
}

TEST(AccessPagingTest, HiddenTableIsListedAndIncomplete) {
  const auto set = decode(machine_paged(), {"nop", "90", "", hidden(0x82)});
  EXPECT_FALSE(set->complete);
  EXPECT_EQ(to_string(set->pages()), "80r 81r 82r");
}

TEST(AccessPagingTest, TablesThatReferToThemselvesAreOnePage) {
  const auto set = decode(machine_paged(), {"nop", "90", "", [](Machine& m) {
                                              for (uint64_t i = 0; i < 512; ++i)
                                                m.memory.write(0x80000 + i * 8, 0x80067);
                                              m.cpu.rip = 0x80068;
                                            }});
  EXPECT_EQ(to_string(set->pages()).find("81"), std::string::npos);
  EXPECT_EQ(set->pages().size(), 1u);
}

// --- delivery by itself ---

TEST(AccessDeliveryTest, ErrorCodeMakesTheFrameLonger) {
  Machine m = machine_64();
  m.cpu.registers[kRsp] = 0x14030;
  EXPECT_EQ(to_string(delivery_access(m.cpu, m.memory, m.options, 14)->pages()), "14w 50r 51r");
  m.cpu.registers[kRsp] = 0x14020;
  EXPECT_EQ(to_string(delivery_access(m.cpu, m.memory, m.options, 14)->pages()), "13w 14w 50r 51r");
  m.cpu.registers[kRsp] = 0x14028;  // aligned down to 0x14020; five items reach 0x13ff8
  EXPECT_EQ(to_string(delivery_access(m.cpu, m.memory, m.options, 0x20)->pages()), "13w 14w 50r 51r");
}

TEST(AccessDeliveryTest, ExternalInterruptIgnoresTheLevelOfItsGate) {
  Machine m = machine_64();
  user(m);
  EXPECT_EQ(to_string(delivery_access(m.cpu, m.memory, m.options, 0x20)->pages()), "50r 51r 52r 53w");
}

TEST(AccessDeliveryTest, RealModeReadsTheVectorAndPushesThreeWords) {
  const Machine m = machine_16();
  EXPECT_EQ(to_string(delivery_access(m.cpu, m.memory, m.options, 8)->pages()), "0r 34w");
}

TEST(AccessDeliveryTest, Virtual8086IsAnError) {
  Machine m = machine_32();
  m.cpu.rflags |= 1 << 17;
  EXPECT_FALSE(delivery_access(m.cpu, m.memory, m.options, 8).has_value());
}

}  // namespace
}  // namespace reprise::x86
