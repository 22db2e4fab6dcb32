// The specification of access decoding in 64-bit mode, as a table. access_machine_fake.h says how to read a
// row.
#include <gtest/gtest.h>

#include <algorithm>

#include "x86/access_machine_fake.h"

namespace reprise::x86 {
namespace {

TEST(AccessTest, FetchNeedsThePagesOfTheInstructionOnly) {
  expect_rows(machine_64(), {
                                {"nop", "90", "1r"},
                                {"mov eax, ebx", "89 d8", "1r"},
                                {"nop at the last byte of a page", "90", "1r", rip(0x1fff)},
                                {"mov eax, imm32 over a page end", "b8 01 02 03 04", "1r 2r", rip(0x1ffd)},
                                {"mov eax, imm32 up to a page end", "b8 01 02 03 04", "1r", rip(0x1ffb)},
                                {"jmp to another page: the target is the next fetch", "e9 00 00 10 00", "1r"},
                                {"longest instruction", "66 66 66 66 66 66 66 66 66 66 66 66 66 66 90",
                                 "1r 2r", rip(0x1ff8)},
                            });
}

TEST(AccessTest, DataOperandsNeedReadOrWriteByTheirAction) {
  expect_rows(machine_64(),
              {
                  {"mov ecx, [rax]", "8b 08", "1r 10r"},
                  {"mov [rax], ecx", "89 08", "1r 10w"},
                  {"add [rax], ecx", "01 08", "1r 10w"},
                  {"lock add [rax], ecx", "f0 01 08", "1r 10w"},
                  {"cmp [rax], ecx", "39 08", "1r 10r"},
                  {"test byte [rax], 1", "f6 00 01", "1r 10r"},
                  {"xchg [rax], ecx", "87 08", "1r 10w"},
                  {"xadd [rax], ecx", "0f c1 08", "1r 10w"},
                  {"lock cmpxchg [rdi], ecx", "f0 0f b1 0f", "1r 17w"},
                  {"cmpxchg8b [rdi]", "0f c7 0f", "1r 17w"},
                  {"lock cmpxchg16b [rdi]", "f0 48 0f c7 0f", "1r 17w"},
                  {"lock cmpxchg16b over a page end", "f0 48 0f c7 0f", "1r 17w 18w", with(kRdi, 0x17ff8)},
                  {"inc byte [rax]", "fe 00", "1r 10w"},
                  {"not qword [rax]", "48 f7 10", "1r 10w"},
                  {"setz [rax]", "0f 94 00", "1r 10w"},
                  {"cmovz ecx, [rax]: reads whatever ZF is", "0f 44 08", "1r 10r"},
                  {"movzx ecx, byte [rax]", "0f b6 08", "1r 10r"},
                  {"imul ecx, [rax], 3", "6b 08 03", "1r 10r"},
                  {"movbe [rax], ecx", "0f 38 f1 08", "1r 10w"},
                  {"movnti [rax], ecx", "0f c3 08", "1r 10w"},
                  {"crc32 ecx, dword [rax]", "f2 0f 38 f1 08", "1r 10r"},
                  {"jmp [rax]", "ff 20", "1r 10r"},
              });
}

// "10800+4rw": four bytes from 0x10800 on are read and written; with "x", they are the first of several
// elements.
TEST(AccessTest, TouchesAreTheRangesOfOperandsAndOfTheStack) {
  struct Case {
    const char* code;
    const char* expected;
  };
  const Case cases[] = {
      {"8b 08", "10800+4r"},                          // mov ecx, [rax]
      {"89 08", "10800+4w"},                          // mov [rax], ecx
      {"01 08", "10800+4rw"},                         // add [rax], ecx
      {"f0 48 0f b1 08", "10800+8rw"},                // lock cmpxchg [rax], rcx
      {"8d 08", ""},                                  // lea ecx, [rax]
      {"90", ""},                                     // nop
      {"50", "147f8+8w"},                             // push rax
      {"5b", "14800+8r"},                             // pop rbx
      {"e8 00 00 00 00", "147f8+8w"},                 // call
      {"ff 30", "10800+8r 147f8+8w"},                 // push [rax]
      {"48 a5", "16800+8r 17800+8w"},                 // movsq
      {"f3 48 a5", "16800+8rx 17800+8wx"},            // rep movsq
      {"ff 34 25 00 00 06 00", "147f8+8w 60000+8r"},  // push [0x60000]
  };
  for (const Case& each : cases) {
    std::vector<DataTouch> touches;
    Machine machine = machine_64();
    machine.options.touches = &touches;
    ASSERT_TRUE(decode(machine, {each.code, each.code, ""})) << each.code;
    std::ranges::sort(touches, {}, [](const DataTouch& touch) { return touch.linear; });
    std::string found;
    for (const DataTouch& touch : touches)
      found += fmt::format("{}{:x}+{}{}{}{}", found.empty() ? "" : " ", touch.linear.raw, touch.bytes,
                           touch.reads ? "r" : "", touch.writes ? "w" : "", touch.repeats ? "x" : "");
    EXPECT_EQ(found, each.expected) << each.code;
  }
}

TEST(AccessTest, OperandOverAPageEndNeedsBothPages) {
  expect_rows(machine_64(),
              {
                  {"mov ecx, [0x10ffd]", "8b 08", "1r 10r 11r", with(kRax, 0x10ffd)},
                  {"mov ecx, [0x10ffc]", "8b 08", "1r 10r", with(kRax, 0x10ffc)},
                  {"mov [0x10fff], cx", "66 89 08", "1r 10w 11w", with(kRax, 0x10fff)},
                  {"mov [0x10fff], cl", "88 08", "1r 10w", with(kRax, 0x10fff)},
                  {"add [0x10ff9], rcx", "48 01 08", "1r 10w 11w", with(kRax, 0x10ff9)},
                  {"operand on the page of the code", "89 08", "1w", with(kRax, 0x1800)},
                  {"write and read of one page become a write", "a5", "1r 10w",
                   all({with(kRsi, 0x10100), with(kRdi, 0x10200)})},
                  {"pages in order whatever the order of access", "a5", "1r 10w 16r", with(kRdi, 0x10200)},
              });
}

TEST(AccessTest, AddressesAreFormedAsTheProcessorFormsThem) {
  expect_rows(
      machine_64(),
      {
          {"mov ecx, [rax+rbx*8+0x100]", "8b 8c d8 00 01 00 00", "1r 20r",
           all({with(kRax, 0x1f000), with(kRbx, 0x200)})},
          {"mov ecx, [rax-0x1000]", "8b 88 00 f0 ff ff", "1r fr"},
          {"mov ecx, [rip+0x3000]", "8b 0d 00 30 00 00", "1r 4r"},
          {"mov ecx, [rip-...] counts from the end of the instruction", "8b 0d fa 0f 00 00", "1r 2r"},
          {"mov ecx, [0x60000]", "8b 0c 25 00 00 06 00", "1r 60r"},
          {"mov al, [moffs64 0x1122334455]", "a0 55 44 33 22 11 00 00 00", "1r 1122334r"},
          {"mov ecx, fs:[0x10]", "64 8b 0c 25 10 00 00 00", "1r 30r"},
          {"mov gs:[rcx], eax", "65 89 01", "1r 51w"},
          {"mov ecx, ds:[rax]: other bases do not count", "3e 8b 08", "1r 10r",
           [](Machine& m) { m.cpu.ds.base = 0x99000; }},
          {"mov ecx, [eax]: the upper half of rax does not count", "67 8b 08", "1r 10r",
           with(kRax, 0x5'0001'0800)},
          {"mov ecx, [eax+ebx] wraps at 4 GiB", "67 8b 0c 18", "1r 13r", with(kRax, 0xffff'ffff)},
          {"mov ecx, [r12]", "41 8b 0c 24", "1r 1cr"},
          {"mov ecx, [r13]", "41 8b 4d 00", "1r 1dr"},
          {"mov ecx, [disp32] under REX.B and a 32-bit address", "67 41 8b 0c 25 00 00 06 00", "1r 60r"},
          {"mov ecx, [r13d+eax+0]", "67 41 8b 4c 05 00", "1r 2er", with(kRax, 0x11000)},
      });
}

TEST(AccessTest, InstructionsThatOnlyNameMemoryTouchNothing) {
  expect_rows(machine_64(), {
                                {"lea rcx, [rax]", "48 8d 08", "1r"},
                                {"nop [rax]", "0f 1f 00", "1r"},
                                {"prefetcht0 [rax]", "0f 18 08", "1r"},
                                {"prefetchw [rax]", "0f 0d 08", "1r"},
                                {"cldemote [rax]", "0f 1c 00", "1r"},
                                {"invlpg [rax]", "0f 01 38", "1r"},
                                {"endbr64", "f3 0f 1e fa", "1r"},
                                {"pause", "f3 90", "1r"},
                                {"mfence", "0f ae f0", "1r"},
                                {"syscall", "0f 05", "1r"},
                                {"swapgs", "0f 01 f8", "1r"},
                                {"hlt", "f4", "1r"},
                                {"mov cr3, rax", "0f 22 d8", "1r"},
                                {"rdmsr", "0f 32", "1r"},
                            });
}

TEST(AccessTest, CacheLineInstructionsTouchTheirLine) {
  expect_rows(machine_64(), {
                                {"clflush [0x10fff]", "0f ae 38", "1r 10r", with(kRax, 0x10fff)},
                                {"clflushopt [0x10fff]", "66 0f ae 38", "1r 10r", with(kRax, 0x10fff)},
                                {"clwb [rax]", "66 0f ae 30", "1r 10r"},
                                {"clzero rax", "0f 01 fc", "1r 10w", with(kRax, 0x10fff)},
                                {"monitor", "0f 01 c8", "1r 10r"},
                                {"movdir64b rax, [rcx]", "66 0f 38 f8 01", "1r 10w 11r"},
                            });
}

TEST(AccessTest, StackInstructionsTouchTheStack) {
  expect_rows(
      machine_64(),
      {
          {"push rax", "50", "1r 14w"},
          {"push rax at a page start", "50", "1r 13w", with(kRsp, 0x14000)},
          {"push rax over a page end", "50", "1r 13w 14w", with(kRsp, 0x14004)},
          {"push ax at a page start + 2", "66 50", "1r 14w", with(kRsp, 0x14002)},
          {"push [rax]", "ff 30", "1r 10r 14w"},
          {"push imm8", "6a 01", "1r 14w"},
          {"push fs", "0f a0", "1r 14w"},
          {"pushfq", "9c", "1r 14w"},
          {"pop rax", "58", "1r 14r"},
          {"pop rax over a page end", "58", "1r 14r 15r", with(kRsp, 0x14ffc)},
          {"pop [rax]", "8f 00", "1r 10w 14r"},
          {"pop [rsp] counts from rsp after the pop", "8f 04 24", "1r 14r 15w", with(kRsp, 0x14ff8)},
          {"push [rsp] counts from rsp before the push", "ff 34 24", "1r 13w 14r", with(kRsp, 0x14000)},
          {"popfq", "9d", "1r 14r"},
          {"call rel32", "e8 00 00 00 00", "1r 13w", with(kRsp, 0x14000)},
          {"call rax", "ff d0", "1r 14w"},
          {"call [rax]", "ff 10", "1r 10r 14w"},
          {"ret", "c3", "1r 14r"},
          {"ret 16 reads only the return address", "c2 10 00", "1r 14r 15r", with(kRsp, 0x14ffc)},
          {"leave reads at rbp", "c9", "1r 15r"},
          {"enter 0, 0", "c8 00 00 00", "1r 14w"},
          {"enter 0x1000, 0 probes the new top", "c8 00 10 00", "1r 13w 14w"},
          {"enter 0x3000, 0 skips the pages between", "c8 00 30 00", "1r 11w 14w"},
          {"enter 0x7fd, 0: the probe is a push wide", "c8 fd 07 00", "1r 13w 14w"},
          {"enter 0, 3 copies two frame pointers", "c8 00 00 03", "1r 14w 15r"},
          {"enter 0, 3 with rbp at a page start", "c8 00 00 03", "1r 14w", with(kRbp, 0x15000)},
      });
}

TEST(AccessTest, StringInstructionsTouchTheirFirstElement) {
  expect_rows(machine_64(),
              {
                  {"movsb", "a4", "1r 16r 17w"},
                  {"movsq over a page end", "48 a5", "1r 16r 17w 18w", with(kRdi, 0x17ffc)},
                  {"rep movsb", "f3 a4", "1r 16r 17w"},
                  {"rep movsb, rcx = 0", "f3 a4", "1r", with(kRcx, 0)},
                  {"a32 rep movsb, ecx = 0 in a large rcx", "67 f3 a4", "1r", with(kRcx, 0x1'0000'0000)},
                  {"movsb, rcx = 0, no rep", "a4", "1r 16r 17w", with(kRcx, 0)},
                  {"rep movsq backwards", "f3 48 a5", "1r 16r 17w",
                   all({flags(kDirectionFlag), with(kRsi, 0x16000)})},
                  {"cmpsb", "a6", "1r 16r 17r"},
                  {"repe cmpsd over page ends", "f3 a7", "1r 16r 17r 18r",
                   all({with(kRsi, 0x16ffd), with(kRdi, 0x17ffe)})},
                  {"scasb", "ae", "1r 17r"},
                  {"repne scasb", "f2 ae", "1r 17r"},
                  {"lodsq", "48 ad", "1r 16r"},
                  {"stosb", "aa", "1r 17w"},
                  {"rep stosq", "f3 48 ab", "1r 17w"},
                  {"gs movsb: the source segment may be overridden", "65 a4", "1r 17w 56r"},
                  {"rep insb", "f3 6c", "1r 17w"},
                  {"rep outsd", "f3 6f", "1r 16r"},
                  {"a32 stosb", "67 aa", "1r 17w", with(kRdi, 0x9'0001'7000)},
                  {"xlatb adds al", "d7", "1r 14r", all({with(kRbx, 0x13f80), with(kRax, 0xff)})},
              });
}

TEST(AccessTest, RepeatedStringsMayAskForFollowingPages) {
  const Change many = with(kRcx, 1 << 20);
  expect_rows(
      machine_64(),
      {
          {"rep stosb, one page more", "f3 aa", "1r 17w 18w", all({many, string_pages(1)})},
          {"rep stosb, two pages more", "f3 aa", "1r 17w 18w 19w", all({many, string_pages(2)})},
          {"rep stosb backwards, one page more", "f3 aa", "1r 16w 17w",
           all({many, string_pages(1), flags(kDirectionFlag)})},
          {"rep stosb that ends on its page", "f3 aa", "1r 17w", all({with(kRcx, 0x100), string_pages(2)})},
          {"rep stosq that ends on the next page", "f3 48 ab", "1r 17w 18w",
           all({with(kRcx, 0x101), string_pages(8)})},
          {"rep movsb backwards, down to its page start", "f3 a4", "1r 16r 17w",
           all({with(kRcx, 0x801), string_pages(1), flags(kDirectionFlag)})},
          {"rep movsb backwards, one byte further", "f3 a4", "1r 15r 16w 17w",
           all({with(kRcx, 0x802), string_pages(1), flags(kDirectionFlag)})},
          {"stosb without rep", "aa", "1r 17w", all({many, string_pages(4)})},
      });
}

TEST(AccessTest, BitTestsReachBeyondTheirOperand) {
  expect_rows(
      machine_64(),
      {
          {"bt [rax], ecx", "0f a3 08", "1r 10r", with(kRcx, 31)},
          {"bt [rax], ecx, 4 KiB further", "0f a3 08", "1r 11r", with(kRcx, 0x8000)},
          {"bt [rax], ecx, negative", "0f a3 08", "1r fr", with(kRcx, 0xffff'8000)},
          {"bts [rax], rcx, far", "48 0f ab 08", "1r 30w", with(kRcx, 0x20ull * 0x8000)},
          {"bts [rax], rcx, negative", "48 0f ab 08", "1r fw", with(kRcx, ~0x7fffull)},
          {"lock btr [rax], ecx", "f0 0f b3 08", "1r 11w", with(kRcx, 0x8000)},
          {"btc [rax], cx: the bit number has 16 bits", "66 0f bb 08", "1r fw", with(kRcx, 0x5'8000)},
          {"bt dword [rax], 99: an immediate stays inside", "0f ba 20 63", "1r 10r", with(kRax, 0x10ffc)},
          {"bts over a page end", "0f ab 08", "1r 10w 11w", all({with(kRax, 0x10ffe), with(kRcx, 1)})},
      });
}

TEST(AccessTest, VectorAndFloatingPointOperandsHaveTheirWidth) {
  expect_rows(machine_64(),
              {
                  {"movups xmm0, [0x10ff1]", "0f 10 00", "1r 10r 11r", with(kRax, 0x10ff1)},
                  {"movaps [rax], xmm0", "0f 29 00", "1r 10w"},
                  {"movss xmm0, [0x10ffc]", "f3 0f 10 00", "1r 10r", with(kRax, 0x10ffc)},
                  {"vmovdqu ymm0, [0x10fe1]", "c5 fe 6f 00", "1r 10r 11r", with(kRax, 0x10fe1)},
                  {"vmovdqu64 zmm0, [0x10fc1]", "62 f1 fe 48 6f 00", "1r 10r 11r", with(kRax, 0x10fc1)},
                  {"vmovdqu64 zmm0, [rax+64*63]: compressed displacement", "62 f1 fe 48 6f 40 3f", "1r 11r"},
                  {"vaddps xmm0, xmm0, [rax]{1to4} reads one element", "62 f1 7c 18 58 00", "1r 10r",
                   with(kRax, 0x10ffc)},
                  {"vmovdqu32 [rax]{k1}, zmm0: all lanes are listed", "62 f1 7e 49 7f 00", "1r 10w 11w",
                   with(kRax, 0x10fc4)},
                  {"vmaskmovps ymm0, ymm1, [rax]", "c4 e2 75 2c 00", "1r 10r 11r", with(kRax, 0x10ff0)},
                  {"maskmovdqu xmm0, xmm1 writes at rdi", "66 0f f7 c1", "1r 17w"},
                  {"fld tbyte [0x10ff8]", "db 28", "1r 10r 11r", with(kRax, 0x10ff8)},
                  {"fistp word [rax]", "df 18", "1r 10w"},
                  {"fnstenv [0x10ff0]", "d9 30", "1r 10w 11w", with(kRax, 0x10ff0)},
                  {"fxsave [0x10e00]", "0f ae 00", "1r 10w", with(kRax, 0x10e00)},
                  {"fxsave [0x10f00]", "0f ae 00", "1r 10w 11w", with(kRax, 0x10f00)},
                  {"fxrstor [0x10f00]", "0f ae 08", "1r 10r 11r", with(kRax, 0x10f00)},
                  {"ldmxcsr [rax]", "0f ae 10", "1r 10r"},
                  {"stmxcsr [rax]", "0f ae 18", "1r 10w"},
              });
}

TEST(AccessTest, XsaveTouchesTheAreaThatIsAskedFor) {
  const Change everything = with(kRdx, ~0ull);
  expect_rows(machine_64(),
              {
                  {"xsave, x87 and SSE only", "0f ae 27", "1r 17w",
                   all({with(kRax, 3), with(kRdx, 0), with(kRdi, 0x17dc0)})},
                  {"xsave, header over a page end", "0f ae 27", "1r 17w 18w",
                   all({with(kRax, 3), with(kRdx, 0), with(kRdi, 0x17e00)})},
                  {"xsave of all, 832 bytes", "0f ae 27", "1r 17w 18w",
                   all({everything, xsave_area(832), with(kRdi, 0x17d00)})},
                  {"xsave of all, 2696 bytes", "0f ae 27", "1r 17w 18w", all({everything, xsave_area(2696)})},
                  {"xsaveopt64", "48 0f ae 37", "1r 17w 18w", everything},
                  {"xrstor64", "48 0f ae 2f", "1r 17r 18r", everything},
                  {"xsaves64", "48 0f c7 2f", "1r 17w 18w", everything},
                  {"xsave of an area of 11 KiB", "0f ae 27", "1r 17w 18w 19w 1aw",
                   all({everything, xsave_area(11008)})},
              });
}

TEST(AccessTest, DescriptorTableInstructionsTouchTheirOperand) {
  expect_rows(machine_64(), {
                                {"sgdt [0x10ff8]", "0f 01 00", "1r 10w 11w", with(kRax, 0x10ff8)},
                                {"sidt [rax]", "0f 01 08", "1r 10w"},
                                {"lgdt [rax]", "0f 01 10", "1r 10r"},
                                {"lidt [0x10ff8]", "0f 01 18", "1r 10r 11r", with(kRax, 0x10ff8)},
                                {"str [rax]", "0f 00 08", "1r 10w"},
                                {"smsw [rax]", "0f 01 20", "1r 10w"},
                                {"lmsw [rax]", "0f 01 30", "1r 10r"},
                                {"invpcid rcx, [rax]", "66 0f 38 82 08", "1r 10r"},
                            });
}

TEST(AccessTest, SegmentLoadsReadTheirDescriptor) {
  expect_rows(machine_64(),
              {
                  {"mov ds, eax", "8e d8", "1r 50r", with(kRax, kData0)},
                  {"mov ds, [rax]", "8e 18", "1r 10r 50r", stored(0x10800, kData0)},
                  {"mov ds, eax: the accessed bit is set", "8e d8", "1r 50w", with(kRax, kFresh)},
                  {"mov ds, 0", "8e d8", "1r", with(kRax, 0)},
                  {"mov ds, eax from the LDT", "8e d8", "1r 55r", with(kRax, 0xc)},
                  {"pop fs", "0f a1", "1r 14r 50r", stored(0x14800, kData0)},
                  {"lss ecx, [rax]", "0f b2 08", "1r 10r 50r", stored(0x10804, kData0)},
                  {"lfs rcx, [rax]", "48 0f b4 08", "1r 10r 11r 50r",
                   all({with(kRax, 0x10ff8), stored(0x11000, kData0)})},
                  {"lldt ax", "0f 00 d0", "1r 50r", with(kRax, kTssSelector)},
                  {"ltr ax sets the busy bit", "0f 00 d8", "1r 50w", with(kRax, kTssSelector)},
                  {"verr ax", "0f 00 e0", "1r 50r", with(kRax, kData0)},
                  {"lar ecx, ax: beyond the table nothing is read", "0f 02 c8", "1r", with(kRax, 0x100)},
                  {"lsl ecx, ax", "0f 03 c8", "1r 50r", with(kRax, kFresh)},
                  {"mov ss, ax beyond the table raises #GP", "8e d0", "1r 14w 50r 51r", with(kRax, 0x100)},
              });
}

TEST(AccessTest, FarTransfersTouchPointerStackAndDescriptors) {
  const Change frame_to_user = all({stored(0x14808, kCode3), stored(0x14820, kData3)});
  expect_rows(machine_64(), {
                                {"jmp far [rax]", "ff 28", "1r 10r 50r", stored(0x10804, kCode0)},
                                {"call far [rax]", "ff 18", "1r 10r 14w 50r", stored(0x10804, kCode0)},
                                {"call far [rax], 64-bit", "48 ff 18", "1r 10r 13w 50r",
                                 all({with(kRsp, 0x14000), stored(0x10808, kCode0)})},
                                {"retf", "48 cb", "1r 14r 50r", stored(0x14808, kCode0)},
                                {"retf 0x800 outward: the outer stack pointer is above", "48 ca 00 08",
                                 "1r 14r 15r 50r", stored(0x14808, kCode3)},
                                {"iretq to the same level reads five items", "48 cf", "1r 14r 15r 50r",
                                 all({with(kRsp, 0x14fe8), stored(0x14ff0, kCode0)})},
                                {"iretq to user", "48 cf", "1r 14r 50r", frame_to_user},
                                {"iretq with a fresh stack segment", "48 cf", "1r 14r 50w",
                                 all({frame_to_user, stored(0x14820, kFresh)})},
                                {"jmp far [rax] through a 64-bit gate", "ff 28", "1r 10r 50r",
                                 all({stored(0x10804, 0x40), stored(kGdt + 0x40, gate(kCode0, 0xc, 0))})},
                            });
}

TEST(AccessTest, SoftwareInterruptsTouchWhatDeliveryTouches) {
  expect_rows(
      machine_64(),
      {
          {"int 0x80 at CPL 0", "cd 80", "1r 14w 50r 51r"},
          {"int 0x80 at CPL 3: rsp0", "cd 80", "1r 50r 51r 52r 53w", user},
          {"int 0x81 with IST 1", "cd 81", "1r 50r 51r 52r 54w"},
          {"int3", "cc", "1r 50r 51r 52r 53w", user},
          {"int 0x20 at CPL 3: the gate forbids it, #GP", "cd 20", "1r 50r 51r 52r 53w", user},
          {"int 0xff: the frame is below an aligned rsp", "cd ff", "1r 13w 14w 50r 51r", with(kRsp, 0x1402f)},
          {"ud2 raises #UD", "0f 0b", "1r 14w 50r 51r"},
          {"undefined bytes raise #UD", "06", "1r 14w 50r 51r"},
          {"hlt at CPL 3 raises #GP", "f4", "1r 50r 51r 52r 53w", user},
          {"int 0x80 with a gate beyond the IDT", "cd 80", "1r", [](Machine& m) { m.cpu.idt.limit = 0x7f; }},
      });
}

TEST(AccessTest, PortsReadTheBitmapWhereThePrivilegeLevelAsksForIt) {
  expect_rows(machine_64(), {
                                {"in al, dx at CPL 0", "ec", "1r"},
                                {"in al, dx at CPL 3, allowed", "ec", "1r 52r", user},
                                {"in al, dx at CPL 3 with IOPL 3", "ec", "1r", all({user, flags(3 << 12)})},
                                {"in al, dx at CPL 3, port far up the bitmap", "ec", "1r 52r 53r",
                                 all({user, with(kRdx, 0x8000)})},
                                {"outsb at CPL 3", "6e", "1r 16r 52r", user},
                                {"in al, 0x10 at CPL 3, forbidden: #GP", "e4 10", "1r 50r 51r 52r 53w",
                                 all({user, stored(kTss + 0x6a, 1)})},
                            });
}

TEST(AccessTest, NonCanonicalAddressesRaiseInsteadOfTouching) {
  const Row load{"mov ecx, [rax]", "8b 08", "", with(kRax, 0x8000'0000'0000'0000)};
  const Row push{"push rcx", "51", "", with(kRsp, 0x8000'0000'0000'0000)};
  EXPECT_EQ(decode(machine_64(), load)->exception, kVectorGeneralProtection);
  EXPECT_EQ(decode(machine_64(), push)->exception, kVectorStackFault);
  expect_rows(machine_64(), {
                                {"mov ecx, [0x8000000000000000]", "8b 08", "1r 14w 50r 51r",
                                 with(kRax, 0x8000'0000'0000'0000)},
                                {"mov rcx over the edge of the canonical half", "48 8b 08",
                                 "1r 14w 50r 51r 7ffffffffr", with(kRax, 0x7fff'ffff'fffc)},
                                {"mov cl, [last byte]: the upper half is canonical", "8a 08",
                                 "1r fffffffffffffr", with(kRax, ~0ull)},
                                {"movsb into nowhere", "a4", "1r 14w 16r 50r 51r", with(kRdi, 1ull << 60)},
                                {"fetch from nowhere", "90", "14w 50r 51r", rip(1ull << 50)},
                            });
}

// --- what cannot be read yet ---

TEST(AccessTest, UnreadableCodeListsFetchPageAlone) {
  const auto set = decode(machine_64(), {"mov ecx, [rax]", "8b 08", "", hidden(1)});
  EXPECT_FALSE(set->complete);
  EXPECT_EQ(set->instruction_length, 0);
  EXPECT_EQ(to_string(set->pages()), "1r");
}

TEST(AccessTest, UnreadableSecondCodePageListsBoth) {
  const auto set =
      decode(machine_64(), {"mov eax, imm32", "b8 01 02 03 04", "", all({rip(0x1ffd), hidden(2)})});
  EXPECT_FALSE(set->complete);
  EXPECT_EQ(to_string(set->pages()), "1r 2r");
}

TEST(AccessTest, SecondCodePageIsNotAskedForByAShortInstruction) {
  const auto set = decode(machine_64(), {"push rax", "50", "", all({rip(0x1ffe), hidden(2)})});
  EXPECT_TRUE(set->complete);
  EXPECT_EQ(to_string(set->pages()), "1r 14w");
}

TEST(AccessTest, UnreadableDataIsNoObstacle) {
  const auto set = decode(machine_64(), {"mov ecx, [rax]", "8b 08", "", hidden(0x10)});
  EXPECT_TRUE(set->complete);
  EXPECT_EQ(to_string(set->pages()), "1r 10r");
}

TEST(AccessTest, UnreadableDescriptorTableIsListedAndIncomplete) {
  const auto set =
      decode(machine_64(), {"mov ds, eax", "8e d8", "", all({with(kRax, kData0), hidden(0x50)})});
  EXPECT_FALSE(set->complete);
  EXPECT_EQ(to_string(set->pages()), "1r 50r");
}

TEST(AccessTest, AcquiringWhatIsListedAlwaysLeadsToACompleteSet) {
  Machine m = machine_64();
  user(m);
  m.memory.write(0x1000, bytes_of("cd 80"));
  for (const uint64_t page : {1, 0x50, 0x51, 0x52, 0x53}) m.memory.hide(page);
  int rounds = 0;
  for (; rounds < 10; ++rounds) {
    const auto set = decode_access(m.cpu, m.memory, m.options);
    ASSERT_TRUE(set.has_value());
    for (const PageRight& access : set->pages()) m.memory.show(access.page);
    if (set->complete) break;
  }
  EXPECT_EQ(rounds, 4);  // code, gate, descriptor, TSS
}

TEST(AccessTest, MemoryMappedIoIsListedLikeRam) {
  expect_rows(machine_64(), {{"mov ecx, [0xfee00020]", "8b 08", "1r fee00r", with(kRax, 0xfee0'0020)}});
}

TEST(AccessSetTest, KeepsOrderAndStrongestRight) {
  AccessSet set;
  for (const auto& [page, right] : std::vector<std::pair<uint64_t, Right>>{
           {5, Right::kRead}, {2, Right::kWrite}, {9, Right::kRead}, {5, Right::kWrite}, {2, Right::kRead}})
    EXPECT_TRUE(set.add({PageNumber(page), right}));
  EXPECT_EQ(to_string(set.pages()), "2w 5w 9r");
  const AccessSet copy = set;
  EXPECT_EQ(to_string(copy.pages()), "2w 5w 9r");
}

TEST(AccessSetTest, RefusesMoreThanItsCapacity) {
  AccessSet set;
  for (uint64_t page = 0; page < AccessSet::kCapacity; ++page)
    EXPECT_TRUE(set.add({PageNumber(1000 - page), Right::kRead}));
  EXPECT_FALSE(set.add({PageNumber(5000), Right::kRead}));
  EXPECT_TRUE(set.add({PageNumber(1000), Right::kWrite}));
}

}  // namespace
}  // namespace reprise::x86
