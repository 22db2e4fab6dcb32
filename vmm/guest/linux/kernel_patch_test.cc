#include "vmm/guest/linux/kernel_patch.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vmm/guest/linux/kallsyms_fake.h"
#include "vmm/guest/linux/loaded_kernel_fake.h"

namespace reprise::vmm {
namespace {

using ::testing::HasSubstr;
using Code = std::vector<uint8_t>;

constexpr uint64_t kAddress = FakeKernel::kAddress;
constexpr uint64_t kFileOffset = FakeKernel::kFileOffset;
constexpr uint64_t kVirtual = FakeKernel::kVirtual;
constexpr uint64_t kExecutable = FakeKernel::kExecutable;

Code joined(std::initializer_list<Code> parts) {
  Code all;
  for (const Code& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

struct Patched {
  KernelPatches done;
  std::vector<Code> sections;  // as they are in memory afterwards
};

Patched patch(const FakeKernel& kernel) {
  const Code loaded = kernel.segment();
  Code ram(kAddress + loaded.size() + 64);
  std::ranges::copy(loaded, ram.begin() + kAddress);
  const Code before = ram;
  const auto done = patch_kernel(kernel.elf(), ram, false);
  EXPECT_TRUE(done) << done.error().message;
  EXPECT_TRUE(std::equal(ram.begin(), ram.begin() + kAddress, before.begin()));
  EXPECT_EQ(Code(ram.end() - 64, ram.end()), Code(64));
  Patched result{done.value_or(KernelPatches{}), {}};
  for (size_t i = 0; i < kernel.sections.size(); ++i) {
    const auto begin = ram.begin() + static_cast<ptrdiff_t>(kAddress + kernel.offset_of(i));
    result.sections.emplace_back(begin, begin + static_cast<ptrdiff_t>(kernel.sections[i].bytes.size()));
  }
  return result;
}

Code patched(const Code& code) {
  return patch(FakeKernel(code)).sections[0];
}

std::string refusal(const Code& elf) {
  Code ram(0x4000);
  const auto done = patch_kernel(elf, ram, false);
  if (done) return "";
  EXPECT_EQ(done.error().code, ErrorCode::kBadImage);
  EXPECT_EQ(ram, Code(0x4000));
  return done.error().message;
}

const Code kRdtsc = {0x0f, 0x31};
const Code kRdtscp = {0x0f, 0x01, 0xf9};
const Code kPause = {0xf3, 0x90};
const Code kNop = {0x90};
const Code kReturn = {0xc3};

// --- the three instructions ---

TEST(KernelPatch, RdtscRdtscpAndPauseBecomePortAccesses) {
  const auto [done, sections] =
      patch(FakeKernel(joined({kNop, kRdtsc, kNop, kRdtscp, kNop, kPause, kReturn})));
  EXPECT_EQ(sections[0], (Code{0x90, 0xe5, 0xe0, 0x90, 0xe5, 0xe1, 0x90, 0x90, 0xe6, 0xe2, 0xc3}));
  EXPECT_EQ(done.rdtsc, 1u);
  EXPECT_EQ(done.rdtscp, 1u);
  EXPECT_EQ(done.pause, 1u);
  EXPECT_FALSE(done.fault_handler);
}

TEST(KernelPatch, EachIsCounted) {
  const auto done =
      patch(FakeKernel(joined({kRdtsc, kRdtsc, kPause, kRdtscp, kPause, kRdtsc, kPause, kPause}))).done;
  EXPECT_EQ(done.rdtsc, 3u);
  EXPECT_EQ(done.rdtscp, 1u);
  EXPECT_EQ(done.pause, 4u);
}

TEST(KernelPatch, SectionMayBeginOrEndWithOne) {
  EXPECT_EQ(patched(kRdtsc), (Code{0xe5, 0xe0}));
  EXPECT_EQ(patched(kRdtscp), (Code{0xe5, 0xe1, 0x90}));
  EXPECT_EQ(patched(kPause), (Code{0xe6, 0xe2}));
  EXPECT_EQ(patched(joined({kPause, kReturn})), (Code{0xe6, 0xe2, 0xc3}));
}

TEST(KernelPatch, SectionMayEndWithinOne) {
  for (const Code& cut : {Code{0x90, 0x0f}, Code{0x90, 0x0f, 0x01}, Code{0x90, 0xf3}, Code{0x0f}, Code{}})
    EXPECT_EQ(patched(cut), cut);
}

TEST(KernelPatch, BytesInImmediatesAndDisplacementsStay) {
  for (const Code& code : {
           Code{0xb8, 0x0f, 0x31, 0x0f, 0x31},                                // mov eax, imm32
           Code{0xb8, 0x00, 0xf3, 0x90, 0x00},                                //
           Code{0xb8, 0x0f, 0x01, 0xf9, 0x00},                                //
           Code{0x48, 0xb8, 0xf3, 0x90, 0x0f, 0x31, 0x0f, 0x01, 0xf9, 0x90},  // mov rax, imm64
           Code{0x8b, 0x80, 0x0f, 0x31, 0xf3, 0x90},                          // mov eax, [rax + disp32]
           Code{0xc7, 0x80, 0xf3, 0x90, 0x0f, 0x31, 0x0f, 0x31, 0xf3, 0x90},  // mov [rax + disp32], imm32
           Code{0xe8, 0x0f, 0x01, 0xf9, 0xff},                                // call
       }) {
    EXPECT_EQ(patched(code), code);
    EXPECT_EQ(patched(joined({kReturn, code, kReturn})), joined({kReturn, code, kReturn}));
  }
}

TEST(KernelPatch, BytesOfTwoInstructionsStay) {
  for (const Code& code : {
           Code{0xb0, 0x0f, 0x31, 0xc0},              // mov al, 0x0f; xor eax, eax
           Code{0xb0, 0xf3, 0x90},                    // mov al, 0xf3; nop
           Code{0x24, 0x0f, 0x01, 0xf9},              // and al, 0x0f; add ecx, edi
           Code{0x83, 0xc0, 0xf3, 0x90, 0x90, 0xc3},  // add eax, -13; nop; nop
       })
    EXPECT_EQ(patched(code), code);
}

// The replacement would be a byte short, or the prefix would mean something else. No compiler makes these.
TEST(KernelPatch, PrefixedFormsStay) {
  for (const Code& code : {
           Code{0x66, 0x0f, 0x31},        // data16 rdtsc
           Code{0x48, 0x0f, 0x31},        // rex.w rdtsc
           Code{0xf3, 0x48, 0x0f, 0x31},  //
           Code{0x48, 0x0f, 0x01, 0xf9},  // rex.w rdtscp
           Code{0x66, 0xf3, 0x90},        // data16 pause
           Code{0xf3, 0xf3, 0x90},        //
           Code{0x2e, 0xf3, 0x90},        // cs pause
           Code{0xf3, 0x48, 0x90},        // rep rex.w nop
       })
    EXPECT_EQ(patched(joined({code, kReturn})), joined({code, kReturn}));
}

TEST(KernelPatch, OtherInstructionsOfTheSameGroupsStay) {
  for (const Code& code : {
           Code{0x0f, 0x30},        // wrmsr
           Code{0x0f, 0x32},        // rdmsr
           Code{0x0f, 0x01, 0xf8},  // swapgs
           Code{0xf3, 0xc3},        // repz ret
           Code{0xf3, 0xa4},        // rep movsb
       })
    EXPECT_EQ(patched(joined({code, code})), joined({code, code}));
}

TEST(KernelPatch, BytesThatAreNoInstructionCountAsOneEach) {
  EXPECT_EQ(patched({0x06, 0x0f, 0x31, 0x06, 0xf3, 0x90}), (Code{0x06, 0xe5, 0xe0, 0x06, 0xe6, 0xe2}));
}

TEST(KernelPatch, InstructionsFarFromTheStartAreFound) {
  const Code immediate = {0xb8, 0xf3, 0x90, 0x0f, 0x31};  // a walk from its second byte finds pause and rdtsc
  Code code, expected;
  for (int i = 0; i < 1000; ++i) {
    code = joined({code, immediate, kRdtsc});
    expected = joined({expected, immediate, {0xe5, 0xe0}});
  }
  EXPECT_EQ(patched(code), expected);
}

// --- which bytes are looked at ---

TEST(KernelPatch, EveryExecutableSectionIsPatched) {  // .text, .init.text, .altinstr_replacement
  const auto [done, sections] = patch(FakeKernel({{kRdtsc}, {joined({kNop, kPause})}, {kRdtscp}}));
  EXPECT_EQ(sections, (std::vector<Code>{{0xe5, 0xe0}, {0x90, 0xe6, 0xe2}, {0xe5, 0xe1, 0x90}}));
  EXPECT_EQ(done.rdtsc + done.rdtscp + done.pause, 3u);
}

TEST(KernelPatch, DataStays) {
  const auto [done, sections] = patch(FakeKernel({{kNop},
                                                  {kRdtsc, SHF_ALLOC | SHF_WRITE},
                                                  {kRdtsc, SHF_ALLOC},
                                                  {kRdtsc, SHF_EXECINSTR},  // not loaded, says the flag
                                                  {kRdtsc, kExecutable, SHT_NOTE}}));
  for (size_t i = 1; i < sections.size(); ++i) EXPECT_EQ(sections[i], kRdtsc) << i;
  EXPECT_EQ(done.rdtsc, 0u);
}

TEST(KernelPatch, SectionOutsideTheSegmentIsIgnored) {
  FakeKernel kernel({{kRdtsc}, {kRdtsc}});
  kernel.programs[0].p_filesz = kernel.programs[0].p_memsz = 16;  // the first section
  const auto [done, sections] = patch(kernel);
  EXPECT_EQ(done.rdtsc, 1u);
  EXPECT_EQ(sections[1], kRdtsc);
}

TEST(KernelPatch, SectionIsCutOffAtTheEndOfItsSegment) {
  FakeKernel kernel(joined({kPause, kPause, kPause}));
  kernel.programs[0].p_filesz = kernel.programs[0].p_memsz = 3;
  const auto [done, sections] = patch(kernel);
  EXPECT_EQ(done.pause, 1u);
  EXPECT_EQ(sections[0], (Code{0xe6, 0xe2, 0xf3, 0x90, 0xf3, 0x90}));
}

TEST(KernelPatch, SegmentOutsideOfMemoryIsIgnored) {
  FakeKernel kernel(kRdtsc);
  for (const uint64_t address : {0x3fffull, 0x4000ull, 0x10000ull, ~0ull}) {
    kernel.programs[0].p_paddr = address;
    Code ram(0x4000);
    const auto done = patch_kernel(kernel.elf(), ram, false);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->rdtsc, 0u);
  }
}

// A segment of no size in memory is not checked by read_segments().
TEST(KernelPatch, SegmentThatWrapsRoundIsIgnored) {
  FakeKernel kernel(kRdtsc);
  Code memory(0x3000);
  for (const uint64_t back : {0x1000ull, 2ull}) {
    kernel.programs[0].p_paddr = 0 - back;
    kernel.programs[0].p_filesz = back;
    std::ranges::copy(kRdtsc, memory.begin() + static_cast<ptrdiff_t>(0x1000 - back));
    const Code before = memory;
    const auto done = patch_kernel(kernel.elf(), std::span(memory).subspan(0x1000),
                                   false);  // what is below is not the guest's
    ASSERT_TRUE(done);
    EXPECT_EQ(done->rdtsc, 0u);
    EXPECT_EQ(memory, before);
  }
}

TEST(KernelPatch, FilesWithoutSectionsAreRefused) {
  FakeKernel kernel(kRdtsc);
  EXPECT_EQ(refusal(kernel.elf()), "");
  kernel.header.e_shnum = 0;
  EXPECT_THAT(refusal(kernel.elf()), HasSubstr("no section headers"));
  kernel.header.e_shnum = 1;
  kernel.header.e_shentsize = 40;
  EXPECT_THAT(refusal(kernel.elf()), HasSubstr("no section headers"));
  kernel.header.e_shentsize = sizeof(Elf64_Shdr);
  kernel.header.e_shnum = 2;
  EXPECT_THAT(refusal(kernel.elf()), HasSubstr("truncated"));
  kernel.header.e_shnum = 0xffff;
  EXPECT_THAT(refusal(kernel.elf()), HasSubstr("truncated"));
  EXPECT_THAT(refusal({}), HasSubstr("not an ELF"));
}

TEST(KernelPatch, SectionWithImpossibleBoundsIsIgnored) {
  const FakeKernel kernel(kRdtsc);
  for (const auto& [offset, size] :
       {std::pair{~0ull, 2ull}, std::pair{~0ull, ~0ull}, std::pair{0ull, ~0ull}}) {
    Code elf = kernel.elf();
    auto* section = &elf[elf.size() - sizeof(Elf64_Shdr)];
    std::memcpy(section + offsetof(Elf64_Shdr, sh_offset), &offset, sizeof(offset));
    std::memcpy(section + offsetof(Elf64_Shdr, sh_size), &size, sizeof(size));
    EXPECT_EQ(refusal(elf), "");
  }
}

// --- rdtsc in user mode: the general-protection handler and CR4 ---

// struct idt_data.
Code gate(uint32_t vector, uint64_t address, uint16_t bits = 0x8e00, uint32_t segment = 0x10) {
  Code bytes(24);
  std::memcpy(&bytes[0], &vector, 4);
  std::memcpy(&bytes[4], &segment, 4);
  std::memcpy(&bytes[8], &bits, 2);
  std::memcpy(&bytes[16], &address, 8);
  return bytes;
}

const Code kHandler = {0x90, 0x90, 0x90, 0xfc, 0xc3};
const Code kHooked = {0xe6, kUserFaultPort, 0x90, 0xfc, 0xc3};
const Code kMoveToCr4 = {0x0f, 0x22, 0xe0};  // from rax
const Code kStop = {0xe6, kCr4Port, 0x90};

// The handler's section comes first, so that its address does not depend on the code; the gates' last.
FakeKernel kernel_with(const Code& code, const Code& gates = gate(13, kVirtual),
                       const Code& handler = kHandler) {
  return FakeKernel({{handler}, {code}, {gates, SHF_ALLOC}});
}

TEST(KernelPatch, GeneralProtectionHandlerBeginsWithAStop) {
  const auto [done, sections] =
      patch(kernel_with(kNop, joined({gate(0, kVirtual + 16), gate(13, kVirtual), gate(14, kVirtual + 16)})));
  EXPECT_TRUE(done.fault_handler);
  EXPECT_EQ(sections[0], kHooked);
  EXPECT_EQ(sections[1], kNop);
}

TEST(KernelPatch, GateIsFoundAtAnyMultipleOfEight) {
  EXPECT_TRUE(patch(kernel_with(kNop, joined({Code(8), gate(13, kVirtual)}))).done.fault_handler);
  EXPECT_FALSE(patch(kernel_with(kNop, joined({Code(4), gate(13, kVirtual), Code(4)}))).done.fault_handler);
}

TEST(KernelPatch, OtherThingsAreNoGateOfTheHandler) {
  Code cut = gate(13, kVirtual);
  cut.pop_back();
  for (const Code& gates : {gate(14, kVirtual), gate(13, kVirtual, 0x8f00), gate(13, kVirtual, 0x8e01),
                            gate(13, kVirtual, 0x8e00, 0x33), gate(13, kVirtual + 1), gate(13, kVirtual - 1),
                            gate(13, 0x1000), gate(13, 0), gate(13, ~0ull), cut, Code{}}) {
    const auto [done, sections] = patch(kernel_with(kMoveToCr4, gates));
    EXPECT_FALSE(done.fault_handler);
    EXPECT_EQ(sections[0], kHandler);
  }
}

TEST(KernelPatch, HandlerWithoutRoomStays) {
  const Code handler = {0x0f, 0x01, 0xca, 0xfc, 0xc3};  // clac
  const auto [done, sections] = patch(kernel_with(kNop, gate(13, kVirtual), handler));
  EXPECT_FALSE(done.fault_handler);
  EXPECT_EQ(sections[0], handler);
}

TEST(KernelPatch, HandlerThatEndsWithItsSegmentStays) {
  const auto [done, sections] = patch(FakeKernel({{gate(13, kVirtual + 32), SHF_ALLOC}, {{0x90, 0x90}}}));
  EXPECT_FALSE(done.fault_handler);
  EXPECT_EQ(sections[1], (Code{0x90, 0x90}));
}

TEST(KernelPatch, GateInCodeIsNotOne) {
  EXPECT_FALSE(patch(FakeKernel({{kHandler}, {gate(13, kVirtual), kExecutable}})).done.fault_handler);
}

// A kernel with symbols whose module_finalize() begins with `entry`.
FakeKernel kernel_with_modules(const Code& entry) {
  std::vector<FakeSymbol> symbols;
  for (uint32_t i = 0; i < 300; ++i) symbols.push_back({"Tother_" + std::to_string(i), kVirtual + 64 + i});
  symbols[200] = {"Tmodule_finalize", kVirtual};
  return FakeKernel({{joined({entry, Code(16, 0xcc)})},
                     {fake_kallsyms(symbols, KallsymsLayout::kOffsetsFirst), SHF_ALLOC}});
}

TEST(KernelPatch, EntryOfModuleFinalizeStopsInsteadOfItsPushes) {
  struct Case {
    Code entry, hooked;
    std::vector<uint8_t> pushes;
  };
  const Code call = {0xe8, 1, 2, 3, 4};
  const Code nop = {0x0f, 0x1f, 0x44, 0x00, 0x00};
  const Code endbr = {0xf3, 0x0f, 0x1e, 0xfa};
  const Code rest = {0x49, 0x89, 0xf7};
  const Code stop = {0xe6, kModulePort};
  for (const auto& [entry, hooked, pushes] : std::vector<Case>{
           {joined({call, {0x41, 0x57}, rest}), joined({call, stop, rest}), {15}},  // Debian's 6.1
           {joined({endbr, call, {0x55, 0x53}, rest}), joined({endbr, call, stop, rest}), {5, 3}},
           {joined({nop, {0x55, 0x41, 0x54}, rest}), joined({nop, stop, {0x90}, rest}), {5, 12}},
           {joined({{0x41, 0x50}, rest}), joined({stop, rest}), {8}},
       }) {
    const auto [done, sections] = patch(kernel_with_modules(entry));
    EXPECT_EQ(done.module_pushes, pushes);
    EXPECT_EQ(sections[0], joined({hooked, Code(16, 0xcc)}));
  }
}

TEST(KernelPatch, ModuleFinalizeThatBeginsOtherwiseStays) {
  for (const Code& entry :
       {Code{0x55, 0x48, 0x89, 0xe5}, Code{0x48, 0x83, 0xec, 0x08}, Code{0x41, 0x89, 0xc0}, Code{0xc3}}) {
    const auto [done, sections] = patch(kernel_with_modules(entry));
    EXPECT_TRUE(done.module_pushes.empty());
    EXPECT_EQ(sections[0], joined({entry, Code(16, 0xcc)}));
  }
}

TEST(KernelPatch, KernelWithoutSymbolsIsNotStoppedAtModules) {
  EXPECT_TRUE(patch(FakeKernel(joined({{0x41, 0x57}, Code(16, 0xcc)}))).done.module_pushes.empty());
}

// Walks that begin at an odd byte never meet those that begin at an even one.
TEST(KernelPatch, CodeWhoseBoundariesDependOnItsStartIsDecodedFromThere) {
  Code code = {0x90};
  for (int i = 0; i < 200'000; ++i) code.insert(code.end(), {0x0f, 0x31});
  const CodePatches done = patch_code(code);
  EXPECT_EQ(done.rdtsc, 200'000u);
  EXPECT_EQ(Code(code.begin() + 300'001, code.begin() + 300'003), (Code{0xe5, kRdtscPort}));
}

TEST(KernelPatch, OnlyTheFirstGateCounts) {
  const auto [done, sections] =
      patch(kernel_with(kHandler, joined({gate(13, kVirtual), gate(13, kVirtual + 16)})));
  EXPECT_EQ(sections[0], kHooked);
  EXPECT_EQ(sections[1], kHandler);
}

TEST(KernelPatch, WritesOfCr4StopAndTheirRegisterIsKnown) {
  const Code code = joined({kMoveToCr4,
                            {0x0f, 0x22, 0xe7},
                            kReturn,
                            {0x41, 0x0f, 0x22, 0xe0},
                            {0x41, 0x0f, 0x22, 0xe7},
                            {0x0f, 0x22, 0xe1}});
  const auto [done, sections] = patch(kernel_with(code));
  EXPECT_EQ(sections[1], joined({kStop, kStop, kReturn, kStop, kNop, kStop, kNop, kStop}));
  const uint64_t start = kAddress + 16;
  EXPECT_EQ(done.cr4, (std::map<uint64_t, uint8_t>{
                          {start, 0}, {start + 3, 7}, {start + 7, 8}, {start + 11, 15}, {start + 15, 1}}));
}

TEST(KernelPatch, WritesOfCr4InEverySectionStop) {
  const auto [done, sections] =
      patch(FakeKernel({{kHandler}, {kMoveToCr4}, {gate(13, kVirtual), SHF_ALLOC}, {kMoveToCr4}}));
  EXPECT_EQ(sections[1], kStop);
  EXPECT_EQ(sections[3], kStop);
  EXPECT_EQ(done.cr4.size(), 2u);
}

TEST(KernelPatch, WritesOfCr4StayWithoutTheHandler) {
  const auto [done, sections] = patch(kernel_with(kMoveToCr4, Code(24)));
  EXPECT_FALSE(done.fault_handler);
  EXPECT_TRUE(done.cr4.empty());
  EXPECT_EQ(sections[1], kMoveToCr4);
}

TEST(KernelPatch, WhatOnlyLooksLikeAWriteOfCr4Stays) {
  for (const Code& code : {
           Code{0x0f, 0x20, 0xe0},              // mov rax, cr4
           Code{0x0f, 0x22, 0xd8},              // mov cr3, rax
           Code{0x0f, 0x22, 0xc0},              // mov cr0, rax
           Code{0x44, 0x0f, 0x22, 0xc0},        // mov cr8, rax
           Code{0x0f, 0x23, 0xe0},              // mov dr4, rax
           Code{0xb8, 0x0f, 0x22, 0xe0, 0x00},  // mov eax, imm32
           Code{0xb8, 0x41, 0x0f, 0x22, 0xe0},  //
           Code{0xb0, 0x0f, 0x22, 0xe0},        // mov al, 0x0f; and ah, al
           Code{0x0f, 0x22},                    // cut off
           Code{0x0f},
       }) {
    const auto [done, sections] = patch(kernel_with(code));
    EXPECT_TRUE(done.fault_handler);
    EXPECT_TRUE(done.cr4.empty());
    EXPECT_EQ(sections[1], code);
  }
}

TEST(KernelPatch, ByteBeforeAWriteOfCr4IsNoPrefixIfItBelongsToAnotherInstruction) {
  const auto [done, sections] =
      patch(kernel_with({0xb0, 0x41, 0x0f, 0x22, 0xe3}));  // mov al, 0x41; mov cr4, rbx
  EXPECT_EQ(sections[1], joined({{0xb0, 0x41}, kStop}));
  EXPECT_EQ(done.cr4, (std::map<uint64_t, uint8_t>{{kAddress + 18, 3}}));
}

// --- any code ---

struct Item {
  Code from;
  Code to;
};

// What is replaced, and what looks like it from another byte on.
const std::vector<Item>& items() {
  static const std::vector<Item> all = [] {
    std::vector<Item> result = {{kRdtsc, {0xe5, 0xe0}},
                                {kRdtscp, {0xe5, 0xe1, 0x90}},
                                {kPause, {0xe6, 0xe2}},
                                {{0x0f, 0x22, 0xe1}, kStop},
                                {{0x41, 0x0f, 0x22, 0xe4}, joined({kStop, kNop})}};
    for (const Code& code : {
             Code{0x90},                                                        // nop
             Code{0xc3},                                                        // ret
             Code{0x31, 0xc0},                                                  // xor eax, eax
             Code{0x01, 0xf9},                                                  // add ecx, edi
             Code{0x22, 0xe0},                                                  // and ah, al
             Code{0xb0, 0x0f},                                                  // mov al, 0x0f
             Code{0xb0, 0x41},                                                  // mov al, 0x41
             Code{0xb0, 0xf3},                                                  // mov al, 0xf3
             Code{0xeb, 0xf3},                                                  // jmp
             Code{0x83, 0xc0, 0x0f},                                            // add eax, 15
             Code{0xb8, 0x0f, 0x31, 0xf3, 0x90},                                // mov eax, imm32
             Code{0xb8, 0x90, 0x0f, 0x01, 0xf9},                                //
             Code{0xb8, 0x41, 0x0f, 0x22, 0xe0},                                //
             Code{0xe8, 0xf3, 0x90, 0xf3, 0x90},                                // call
             Code{0x48, 0xb8, 0xf3, 0x90, 0xf3, 0x90, 0x0f, 0x31, 0x0f, 0x31},  // mov rax, imm64
             Code{0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},  // nop
             Code{0x48, 0xc7, 0x84, 0x24, 0x0f, 0x31, 0x0f, 0x31, 0xf3, 0x90, 0xf3,
                  0x90},  // mov [rsp + disp32], imm32
             Code{0x66, 0x66, 0x2e, 0x48, 0xc7, 0x84, 0x24, 0x0f, 0x31, 0x0f, 0x31, 0xf3, 0x90, 0x0f,
                  0x31},              // 15 bytes
             Code{0x66, 0x0f, 0x31},  // prefixed
             Code{0x2e, 0xf3, 0x90},  //
         })
      result.push_back({code, code});
    return result;
  }();
  return all;
}

RC_GTEST_PROP(KernelPatchProperty, ExactlyTheInstructionsPlacedAreFound,
              (const std::vector<uint8_t>& choices, uint16_t repeated)) {
  Code code, expected;
  KernelPatches placed;
  // Long enough that the start is out of sight of the end, now and then.
  for (size_t turn = 0; turn <= repeated % 8u; ++turn)
    for (const uint8_t choice : choices) {
      const size_t index = choice % items().size();
      const uint64_t address = kAddress + 16 + code.size();
      placed.rdtsc += index == 0;
      placed.rdtscp += index == 1;
      placed.pause += index == 2;
      if (index == 3) placed.cr4[address] = 1;
      if (index == 4) placed.cr4[address] = 12;
      code = joined({code, items()[index].from});
      expected = joined({expected, items()[index].to});
    }
  const auto [done, sections] = patch(kernel_with(code));
  RC_ASSERT(sections[1] == expected);
  RC_ASSERT(done.fault_handler);
  RC_ASSERT(done.rdtsc == placed.rdtsc);
  RC_ASSERT(done.rdtscp == placed.rdtscp);
  RC_ASSERT(done.pause == placed.pause);
  RC_ASSERT(done.cr4 == placed.cr4);
}

// Section headers and program headers of any content: nothing outside of memory may be touched (for the
// sanitizers to see).
RC_GTEST_PROP(KernelPatchProperty, AnyHeadersAreSafe,
              (const std::vector<std::tuple<uint16_t, uint8_t, uint64_t>>& changes)) {
  Code elf = kernel_with(joined({kMoveToCr4, kRdtsc, kPause})).elf();
  for (const auto& [place, how, value] : changes) {
    // Fields of eight bytes; small numbers as often as large ones.
    const size_t at = place % (elf.size() / 8) * 8;
    const uint64_t number = how % 2 == 0 ? value >> how % 64 : 0 - (value >> how % 64);
    std::memcpy(&elf[at], &number, std::min<size_t>(8, elf.size() - at));
  }
  Code ram(0x2000);
  (void)patch_kernel(elf, ram, false);
}

}  // namespace
}  // namespace reprise::vmm
