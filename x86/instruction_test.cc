#include "x86/instruction.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "x86/access_machine_fake.h"
#include "x86/operand_address.h"

namespace reprise::x86 {
namespace {

Machine machine_of(Vendor vendor) {
  Machine m = machine_64();
  m.cpu.vendor = vendor;
  return m;
}

// The instruction in `code`, decoded for this machine. Fails the test where there is none.
Instruction decoded(const Machine& m, const char* code) {
  Instruction instruction;
  EXPECT_EQ(decode(m.cpu, bytes_of(code), instruction), DecodeOutcome::kDecoded) << code;
  return instruction;
}

uint64_t address_of(const Machine& m, const char* code) {
  const Instruction instruction = decoded(m, code);
  const auto found = std::ranges::find_if(
      instruction.operands(), [](const auto& operand) { return operand.type == ZYDIS_OPERAND_TYPE_MEMORY; });
  if (found == instruction.operands().end()) return 0;
  return operand_address(m.cpu, instruction, *found).value_or(Gva(0)).raw;
}

struct Length {
  const char* code;
  uint8_t intel, amd;
};

// Each seen on an EPYC, with the next page missing behind the shorter form.
constexpr Length kNearBranches[] = {
    {"66 0f 80 01 02 03 04", 7, 5},
    {"66 e8 01 02 03 04", 6, 4},
    {"66 e9 01 02 03 04", 6, 4},
    {"0f 80 01 02 03 04", 6, 6},
    {"66 48 e9 01 02 03 04", 7, 7},
    {"66 eb 03", 3, 3},
    {"66 71 03", 3, 3},
    {"66 c3", 2, 2},
    {"66 ff d0", 3, 3},
};

TEST(InstructionTest, OperandSizePrefixShortensNearBranchesOfAmdOnly) {
  for (const Length& row : kNearBranches) {
    EXPECT_EQ(decoded(machine_of(Vendor::kIntel), row.code).length(), row.intel) << row.code;
    EXPECT_EQ(decoded(machine_of(Vendor::kAmd), row.code).length(), row.amd) << row.code;
  }
}

TEST(InstructionTest, ProtectedModeObeysTheOperandSizePrefixWhoeverMadeTheProcessor) {
  for (const Vendor vendor : {Vendor::kIntel, Vendor::kAmd}) {
    Machine m = machine_32();
    m.cpu.vendor = vendor;
    EXPECT_EQ(decoded(m, "66 0f 80 01 02 03 04").length(), 5);
  }
}

// Seen on an EPYC: rsp moves by two.
TEST(InstructionTest, NearReturnsAndCallsOfAmdMoveTwoBytesUnderAnOperandSizePrefix) {
  const std::vector<Row> rows = {
      {"ret", "66 c3", "1r 14r", with(kRsp, 0x14ffe)},
      {"ret with REX.W", "66 48 c3", "1r 14r 15r", with(kRsp, 0x14ffe)},
      {"ret without prefix", "c3", "1r 14r 15r", with(kRsp, 0x14ffe)},
      {"call rax", "66 ff d0", "1r 14w", with(kRsp, 0x14002)},
      {"call rel16", "66 e8 01 02", "1r 14w", with(kRsp, 0x14002)},
      {"call [rax]", "66 ff 10", "1r 10r 14w", all({with(kRsp, 0x14002), with(kRax, 0x10ffe)})},
      {"jmp [rax]", "66 ff 20", "1r 10r", with(kRax, 0x10ffe)},
  };
  expect_rows(machine_of(Vendor::kAmd), rows);
}

TEST(InstructionTest, NearReturnsAndCallsOfIntelMoveEightBytesUnderAnOperandSizePrefix) {
  const std::vector<Row> rows = {
      {"ret", "66 c3", "1r 14r 15r", with(kRsp, 0x14ffe)},
      {"call rax", "66 ff d0", "1r 13w 14w", with(kRsp, 0x14002)},
      {"jmp [rax]", "66 ff 20", "1r 10r 11r", with(kRax, 0x10ffe)},
  };
  expect_rows(machine_of(Vendor::kIntel), rows);
}

TEST(InstructionTest, UndefinedOpcodeIsCompleteForAmdAndNeedsItsModRmForIntel) {
  for (const char* code : {"0f ff", "0f b9", "66 0f ff", "0f ff 84"}) {
    Instruction instruction;
    EXPECT_EQ(decode(machine_of(Vendor::kAmd).cpu, bytes_of(code), instruction), DecodeOutcome::kInvalid);
    EXPECT_EQ(decode(machine_of(Vendor::kIntel).cpu, bytes_of(code), instruction), DecodeOutcome::kMoreBytes);
  }
}

TEST(InstructionTest, BeginningOfAnInstructionAsksForMoreBytes) {
  for (const Vendor vendor : {Vendor::kIntel, Vendor::kAmd})
    for (const char* code : {"48", "0f", "48 8b", "81 05 00 00 00 00 0f ff", "66 0f 80 01"}) {
      Instruction instruction;
      EXPECT_EQ(decode(machine_of(vendor).cpu, bytes_of(code), instruction), DecodeOutcome::kMoreBytes);
    }
}

TEST(InstructionTest, MoreThanFifteenBytesAreTooLong) {
  Instruction instruction;
  EXPECT_EQ(decode(machine_64().cpu, std::vector<uint8_t>(15, 0x66), instruction), DecodeOutcome::kTooLong);
}

TEST(InstructionTest, VendorFollowsFromTheNameInCpuid) {
  EXPECT_EQ(vendor_of(0x68747541, 0x69746e65, 0x444d4163), Vendor::kAmd);
  EXPECT_EQ(vendor_of(0x6f677948, 0x6e65476e, 0x656e6975), Vendor::kAmd);  // HygonGenuine
  EXPECT_EQ(vendor_of(0x756e6547, 0x49656e69, 0x6c65746e), Vendor::kIntel);
  EXPECT_EQ(vendor_of(0, 0, 0), Vendor::kIntel);
}

TEST(InstructionTest, FetchReadsOverAPageEndAndFailsWhereTheGuestMapsNothing) {
  Machine m = machine_64();
  m.cpu.rip = 0x1ffe;
  m.memory.write(0x1ffe, bytes_of("48 8b 04 24"));  // mov rax, [rsp]
  const LinearMemory memory(m.cpu.paging(), m.memory);
  Instruction instruction;
  ASSERT_TRUE(fetch(m.cpu, memory, instruction));
  EXPECT_EQ(instruction.length(), 4);
  m.memory.hide(2);
  EXPECT_FALSE(fetch(m.cpu, memory, instruction));
}

TEST(InstructionTest, OnlyWhatCannotRaiseMoreThanAddressesDoOnlyComputes) {
  const Machine m = machine_64();
  for (const char* code : {"48 01 c8", "8b 07", "75 fe", "eb fe", "0f 44 c1", "8d 07", "90", "f7 e1"})
    EXPECT_TRUE(decoded(m, code).only_computes()) << code;
  // div, push, call, syscall, pushf, cpuid, in, hlt, cli, fld1, pause
  for (const char* code :
       {"f7 f1", "50", "ff d0", "0f 05", "9c", "0f a2", "ec", "f4", "fa", "d9 e8", "f3 90"})
    EXPECT_FALSE(decoded(m, code).only_computes()) << code;
}

TEST(InstructionTest, WhatSavesLoadsOrOutlivesTheFlagsDoesNotHideTheTrapFlag) {
  const Machine m = machine_64();
  for (const char* code : {"48 01 c8", "50", "58", "ff d0", "c3", "f0 0f b1 0f", "fc", "c9", "0f 28 c1"})
    EXPECT_TRUE(decoded(m, code).hides_trap_flag()) << code;
  // pushf, popf, iretq, sti, cli, div, syscall, int3, pause
  for (const char* code : {"9c", "9d", "48 cf", "fb", "fa", "f7 f1", "0f 05", "cc", "f3 90"})
    EXPECT_FALSE(decoded(m, code).hides_trap_flag()) << code;
}

TEST(InstructionTest, KindsOfInstructionsAreToldApart) {
  const Machine m = machine_64();
  EXPECT_TRUE(decoded(m, "f3 a4").is_repeated());
  EXPECT_FALSE(decoded(m, "a4").is_repeated());
  EXPECT_FALSE(decoded(m, "f3 90").is_repeated());
  EXPECT_TRUE(decoded(m, "48 cf").is_iret());
  EXPECT_TRUE(decoded(m, "cb").is_far_return());
  EXPECT_FALSE(decoded(m, "c3").is_far_return());
  EXPECT_TRUE(decoded(m, "8e d0").loads_stack_segment());
  EXPECT_FALSE(decoded(m, "8e d8").loads_stack_segment());
  EXPECT_FALSE(decoded(m, "8c d0").loads_stack_segment());
  EXPECT_TRUE(decoded(m, "f4").is_privileged());
}

TEST(InstructionTest, LengthsAreThoseOfIntelOnEveryHost) {
  const InstructionLengths lengths;
  EXPECT_EQ(lengths.at(bytes_of("66 0f 80 01 02 03 04")), 7u);
  EXPECT_EQ(lengths.at(bytes_of("90")), 1u);
  EXPECT_EQ(lengths.at(bytes_of("06")), std::nullopt);
}

TEST(OperandAddressTest, FollowsFromRegistersSegmentsAndWidths) {
  Machine m = machine_64();  // rax 10800, rcx 11800 and so on; fs 30000, gs 40000; rip 1000
  EXPECT_EQ(address_of(m, "8b 44 48 10"), 0x10800 + 2 * 0x11800 + 0x10u);  // mov eax, [rax+2*rcx+10h]
  EXPECT_EQ(address_of(m, "8b 05 10 00 00 00"), 0x1016u);                  // [rip+10h]
  EXPECT_EQ(address_of(m, "67 8b 05 f0 ff ff ff"), 0xff7u);                // [eip-10h]
  EXPECT_EQ(address_of(m, "64 8b 00"), 0x40800u);                          // fs:[rax]
  EXPECT_EQ(address_of(m, "65 8b 04 25 08 00 00 00"), 0x40008u);           // gs:[8]
  m.cpu.registers[kRax] = 0xffff'ffff'0000'0010;
  EXPECT_EQ(address_of(m, "67 8b 00"), 0x10u);  // [eax]
}

TEST(OperandAddressTest, InstructionsThatReachBeyondTheirOperandAreFollowed) {
  Machine m = machine_64();
  m.cpu.registers[kRcx] = 0x40;
  EXPECT_EQ(address_of(m, "0f a3 08"), 0x10808u);    // bt [rax], ecx
  EXPECT_EQ(address_of(m, "8f 04 24"), 0x14808u);    // pop [rsp]: after the pop
  EXPECT_EQ(address_of(m, "48 a4"), 0x17800u);       // movsb: its first element
  EXPECT_EQ(address_of(m, "d7"), 0x13800u + 0x00u);  // xlat: rbx + al
  m.cpu.registers[kRax] = 0x12;
  EXPECT_EQ(address_of(m, "d7"), 0x13812u);
}

TEST(OperandAddressTest, VectorIndicesGiveNoAddress) {
  const Machine m = machine_64();
  const Instruction gather = decoded(m, "c4 e2 69 90 04 08");  // vpgatherdd xmm0, [rax+xmm1], xmm2
  EXPECT_FALSE(operand_address(m.cpu, gather, gather.operand(1)).has_value());
}

TEST(OperandAddressTest, RealModeAddsTheSegmentAndWrapsAt64KiB) {
  Machine m = machine_16();
  m.cpu.registers[kRbx] = 0xfff0;
  m.cpu.registers[kRsi] = 0x20;
  EXPECT_EQ(address_of(m, "8b 00"), 0x40010u);  // mov ax, [bx+si]
}

}  // namespace
}  // namespace reprise::x86
