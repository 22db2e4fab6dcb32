#include "vmm/guest/bare/pvh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "vmm/guest/elf_image_fake.h"

namespace reprise::vmm {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

// The sentence that an image is refused with; empty if it is not.
std::string refusal(const std::vector<uint8_t>& elf) {
  const auto image = parse_image(elf);
  if (image) return "";
  EXPECT_EQ(image.error().code, ErrorCode::kBadImage);
  return image.error().message;
}

std::string refusal_of(const std::function<void(FakeElfImage&)>& change) {
  FakeElfImage fake;
  change(fake);
  return refusal(fake.bytes());
}

template <typename T>
T guest_value(const std::vector<uint8_t>& ram, uint64_t address) {
  T value;
  std::memcpy(&value, &ram.at(address), sizeof(T));
  return value;
}

// --- parsing ---

TEST(PvhParse, ImageHasItsSegmentsEntryAndNote) {
  const auto elf = FakeElfImage().bytes();
  const auto image = parse_image(elf);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->entry, Gpa(0x100000));
  ASSERT_EQ(image->segments.size(), 2u);
  EXPECT_EQ(image->segments[1].address, Gpa(0x200000));
  EXPECT_EQ(image->segments[1].memory_bytes, 0x10000u);
  EXPECT_EQ(image->segments[1].data.size(), 5u);
  const RepriseNote expected{true, Gpa(0x300000), Gpa(0xd0000000), Gpa(0x300000), Gpa(0x310000)};
  EXPECT_EQ(image->reprise, expected);
  EXPECT_EQ(require_safepoints(*image).value(), expected);
}

TEST(PvhParse, OrdinaryKernelHasNoRepriseNote) {
  FakeElfImage fake;
  fake.with_reprise = false;
  const auto elf = fake.bytes();
  const auto image = parse_image(elf);
  ASSERT_TRUE(image);
  EXPECT_FALSE(image->reprise);
  EXPECT_THAT(require_safepoints(*image).error().message, HasSubstr("no safepoints"));
}

TEST(PvhParse, SegmentsAreSortedByAddress) {
  FakeElfImage fake;
  std::swap(fake.programs[0], fake.programs[1]);
  const auto elf = fake.bytes();
  const auto image = parse_image(elf);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->segments[0].address, Gpa(0x100000));
}

TEST(PvhParse, EntryMayHaveFourBytes) {
  EXPECT_EQ(refusal_of([](FakeElfImage& fake) { fake.entry_bytes = 4; }), "");
  EXPECT_THAT(refusal_of([](FakeElfImage& fake) { fake.entry_bytes = 2; }), HasSubstr("4 or 8"));
}

TEST(PvhParse, EmptyLoadSegmentIsIgnored) {
  EXPECT_EQ(refusal_of([](FakeElfImage& fake) {
              fake.programs.push_back({PT_LOAD, 0, ~0ull, 0, ~0ull, 0, 0, 0});
              fake.header.e_phnum = 4;
            }),
            "");
}

TEST(PvhParse, NotesInEightByteAlignmentAreRead) {
  FakeElfImage fake;
  fake.with_entry = fake.with_reprise = false;
  auto elf = fake.bytes();
  // Name "Xen" ends at 16; the description begins there in either alignment, and the next note at 24.
  const uint64_t offset = elf.size();
  for (int i = 0; i < 2; ++i) {
    const uint64_t entry = 0x100000;
    const auto note = fake_note("Xen", i == 0 ? 5 : 18, &entry, i == 0 ? 4 : 8);
    elf.insert(elf.end(), note.begin(), note.end());
    if (i == 0) elf.resize(elf.size() + 4);
  }
  Elf64_Phdr program = {PT_NOTE, PF_R, offset, 0, 0, elf.size() - offset, 0, 8};
  std::memcpy(&elf[sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr)], &program, sizeof(program));
  EXPECT_EQ(refusal(elf), "");
}

TEST(PvhParse, OtherFilesAreRefusedWithTheReason) {
  EXPECT_THAT(refusal({}), HasSubstr("not an ELF"));
  EXPECT_THAT(refusal({'M', 'Z', 0, 0, 0}), HasSubstr("not an ELF"));
  EXPECT_THAT(refusal({0x7f, 'E', 'L', 'F'}), HasSubstr("ends within its ELF header"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_machine = EM_AARCH64; }),
              HasSubstr("x86-64 is needed"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_ident[EI_CLASS] = ELFCLASS32; }),
              HasSubstr("x86-64"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_ident[EI_DATA] = ELFDATA2MSB; }),
              HasSubstr("x86-64"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_type = ET_REL; }), HasSubstr("link it"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_phnum = 0; }), HasSubstr("no program headers"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_phentsize = 32; }), HasSubstr("56 are needed"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.header.e_phoff = ~0ull - 8; }), HasSubstr("truncated"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.with_entry = false; }), HasSubstr("no PVH entry"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.programs[0].p_type = f.programs[1].p_type = PT_NULL; }),
              HasSubstr("no PT_LOAD"));
}

TEST(PvhParse, BadSegmentsAreRefused) {
  const auto segment = [](const std::function<void(Elf64_Phdr&)>& change) {
    return refusal_of([&change](FakeElfImage& fake) { change(fake.programs[1]); });
  };
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_offset = 0x10000; }), HasSubstr("truncated"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_offset = ~0ull; }), HasSubstr("truncated"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_filesz = ~0ull; }), HasSubstr("truncated"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_memsz = 4; }), HasSubstr("only 4 in memory"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_paddr = ~0ull; }), HasSubstr("outside any machine"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_memsz = ~0ull; }), HasSubstr("outside any machine"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_paddr = 0x100fff; }), HasSubstr("overlap"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_paddr = 0x7fff; }), HasSubstr("boot information"));
  EXPECT_THAT(segment([](Elf64_Phdr& p) { p.p_paddr = 0x1000; }), HasSubstr("boot information"));
  const auto below = [&segment](uint64_t size) {
    return segment([size](Elf64_Phdr& p) { p.p_paddr = 0x1000, p.p_memsz = size; });
  };
  EXPECT_THAT(below(0x5001), HasSubstr("boot information"));
  EXPECT_EQ(below(0x5000), "");
  EXPECT_EQ(segment([](Elf64_Phdr& p) { p.p_paddr = 0x8000; }), "");
  EXPECT_EQ(segment([](Elf64_Phdr& p) { p.p_paddr = 0x101000; }), "");
}

TEST(PvhParse, EntryOutsideTheImageIsRefused) {
  for (const uint64_t entry : {0x0ull, 0xfffffull, 0x101000ull, 0x100100000ull, ~0ull})
    EXPECT_THAT(refusal_of([entry](FakeElfImage& fake) { fake.entry = entry; }),
                HasSubstr("PVH entry point"));
}

TEST(PvhParse, EntryAboveFourGigabytesIsRefused) {
  EXPECT_THAT(refusal_of([](FakeElfImage& fake) {
                fake.programs[1].p_paddr = 0x100000000;
                fake.entry = 0x100000000;
              }),
              HasSubstr("PVH entry point"));
}

TEST(PvhParse, BadRepriseNotesAreRefused) {
  const auto note = [](const std::function<void(FakeRepriseNote&)>& change) {
    return refusal_of([&change](FakeElfImage& fake) { change(fake.reprise); });
  };
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.version = 2; }), HasSubstr("version 2"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.flags = 3; }), HasSubstr("flags 0x3"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.clock += 8; }), HasSubstr("page aligned"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.trap += 8; }), HasSubstr("page aligned"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.clock = 0x310000; }), HasSubstr("outside the private range"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.clock = 0x2ff000; }), HasSubstr("outside the private range"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.private_end = 0x300000; }),
              HasSubstr("outside the private range"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.private_end = 0x2ff000; }),
              HasSubstr("begin and end at a page"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.private_begin = 1; }), HasSubstr("begin and end at a page"));
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.private_end += kMaxPrivateBytes; }),
              HasSubstr("at most 64 MiB"));
  for (const uint64_t device : {0xfec00000, 0xfed00000, 0xfee00000})
    EXPECT_THAT(note([device](FakeRepriseNote& n) { n.trap = device; }), HasSubstr("on a device"));
  EXPECT_EQ(note([](FakeRepriseNote& n) { n.trap = 0xfed80000; }), "");
  EXPECT_THAT(note([](FakeRepriseNote& n) { n.trap = ~0xfffull; }), HasSubstr("out of reach"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.reprise_bytes = 36; }), HasSubstr("40 are needed"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.reprise_bytes = 0; }), HasSubstr("40 are needed"));
}

TEST(PvhParse, PagesOfSafepointsAreNotLookedAtWithoutSafepoints) {
  FakeElfImage fake;
  fake.reprise = {.flags = 0, .clock = 1, .trap = 1, .private_begin = 0, .private_end = 0};
  const auto elf = fake.bytes();
  const auto image = parse_image(elf);
  ASSERT_TRUE(image);
  EXPECT_FALSE(require_safepoints(*image));
  EXPECT_TRUE(check_fits(*image, 16 * kMiB));
}

TEST(PvhParse, SecondNoteOfAKindIsRefused) {
  const FakeRepriseNote note;
  EXPECT_THAT(
      refusal_of([&](FakeElfImage& f) { f.more_notes = fake_note("Reprise", 1, &note, sizeof(note)); }),
      HasSubstr("two Reprise notes"));
  EXPECT_THAT(refusal_of([&](FakeElfImage& f) { f.more_notes = fake_note("Xen", 18, &note, 8); }),
              HasSubstr("two PVH entry notes"));
  EXPECT_EQ(refusal_of([&](FakeElfImage& f) { f.more_notes = fake_note("Reprise", 2, &note, 8); }), "");
  EXPECT_EQ(refusal_of([&](FakeElfImage& f) { f.more_notes = fake_note("Xenon", 18, &note, 8); }), "");
}

TEST(PvhParse, DamagedNotesAreRefused) {
  EXPECT_THAT(refusal_of([](FakeElfImage& f) {
                f.more_notes = {1, 2, 3, 4};
              }),
              HasSubstr("damaged ELF note"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.more_notes.assign(12, 0xff); }),
              HasSubstr("damaged ELF note"));
  EXPECT_THAT(refusal_of([](FakeElfImage& f) { f.programs[2].p_offset = ~0ull - 4; }),
              HasSubstr("truncated"));
}

TEST(PvhParse, TruncatedImageIsRefusedAtEveryLength) {
  const auto elf = FakeElfImage().bytes();
  for (size_t size = 0; size < elf.size(); ++size)
    // A copy of exactly that size, so that a sanitizer sees a read beyond its end.
    EXPECT_NE(refusal(std::vector<uint8_t>(elf.begin(), elf.begin() + static_cast<ptrdiff_t>(size))), "")
        << size;
}

TEST(PvhParse, ImageWithAnyByteChangedIsRefusedOrLoads) {
  const auto elf = FakeElfImage().bytes();
  std::vector<uint8_t> ram(4 * kMiB);
  for (size_t i = 0; i < elf.size(); ++i)
    for (const uint8_t value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      auto changed = elf;
      changed[i] = value;
      const auto image = parse_image(changed);
      if (image) (void)load(*image, ram, "");
    }
}

RC_GTEST_PROP(PvhProperty, MutatedImageIsRefusedOrLoads,
              (const std::vector<std::tuple<uint16_t, uint64_t, bool>>& changes)) {
  auto elf = FakeElfImage().bytes();
  for (const auto& [at, value, is_wide] : changes) {
    const size_t size = is_wide ? 8 : 1;
    std::memcpy(&elf[at % (elf.size() - 8)], &value, size);
  }
  static std::vector<uint8_t> ram(4 * kMiB);
  const auto image = parse_image(elf);
  if (!image) {
    RC_ASSERT(image.error().code == ErrorCode::kBadImage);
    return;
  }
  const auto state = load(*image, ram, "x");
  if (state) RC_ASSERT(state->entry.raw < ram.size());
}

// --- loading ---

class PvhLoad : public ::testing::Test {
 protected:
  Result<BootState> boot(std::string_view command_line = "console=ttyS0") {
    elf_ = fake_.bytes();
    const auto image = parse_image(elf_);
    if (!image) return tl::unexpected(image.error());
    return load(*image, ram_, command_line);
  }
  std::string load_refusal(std::string_view command_line = "") {
    const std::vector<uint8_t> before = ram_;
    const auto state = boot(command_line);
    EXPECT_EQ(ram_, before) << "something was written";
    return state ? "" : state.error().message;
  }

  FakeElfImage fake_;
  std::vector<uint8_t> elf_;
  std::vector<uint8_t> ram_ = std::vector<uint8_t>(4 * kMiB, 0xcc);
};

TEST_F(PvhLoad, SegmentsAreCopiedAndTheirRestIsZero) {
  ASSERT_TRUE(boot());
  EXPECT_EQ(ram_[0x100000], 0xf4);
  EXPECT_EQ(ram_[0x100fff], 0);
  EXPECT_EQ(ram_[0x101000], 0xcc);
  EXPECT_EQ(ram_[0x200004], 5);
  EXPECT_EQ(ram_[0x200005], 0);
  EXPECT_EQ(ram_[0x20ffff], 0);
  EXPECT_EQ(ram_[0x210000], 0xcc);
}

TEST_F(PvhLoad, StartInfoDescribesTheMachine) {
  const auto state = boot();
  ASSERT_TRUE(state);
  const uint64_t info = state->rbx;
  EXPECT_EQ(guest_value<uint32_t>(ram_, info), 0x336ec578u);
  EXPECT_EQ(guest_value<uint32_t>(ram_, info + 4), 1u);
  EXPECT_EQ(guest_value<uint64_t>(ram_, info + 8), 0u);   // flags, modules
  EXPECT_EQ(guest_value<uint64_t>(ram_, info + 32), 0u);  // RSDP
  const auto line = guest_value<uint64_t>(ram_, info + 24);
  EXPECT_STREQ(reinterpret_cast<const char*>(&ram_[line]), "console=ttyS0");
  const auto map = guest_value<uint64_t>(ram_, info + 40);
  ASSERT_EQ(guest_value<uint32_t>(ram_, info + 48), 3u);
  const std::array<std::array<uint64_t, 3>, 3> expected = {
      {{0, 0xa0000, 1}, {0xa0000, 0x60000, 2}, {0x100000, 3 * kMiB, 1}}};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(guest_value<uint64_t>(ram_, map + 24 * i), expected[i][0]);
    EXPECT_EQ(guest_value<uint64_t>(ram_, map + 24 * i + 8), expected[i][1]);
    EXPECT_EQ(guest_value<uint64_t>(ram_, map + 24 * i + 16), expected[i][2]);
  }
}

TEST_F(PvhLoad, RegistersAreAsTheBootAbiSays) {
  const auto state = boot();
  ASSERT_TRUE(state);
  EXPECT_EQ(state->entry, Gpa(0x100000));
  EXPECT_EQ(state->cr0 & 0x80000001, 1u);  // PE, not PG
  EXPECT_EQ(state->cr4, 0u);
  EXPECT_EQ(state->efer, 0u);
  EXPECT_EQ(state->rflags & 0x20300, 0u);  // VM, IF, TF
  EXPECT_EQ(state->code.limit, 0xffffffffu);
  EXPECT_TRUE(state->code.is_32_bit && state->code.granular && state->code.code_or_data);
  EXPECT_EQ(state->code.type & 0xa, 0xa);
  EXPECT_EQ(state->data.type & 0xa, 0x2);
  EXPECT_EQ(state->task.limit, 0x67u);
  EXPECT_FALSE(state->task.code_or_data);
}

TEST_F(PvhLoad, GdtHoldsWhatTheRegistersHold) {
  const auto state = boot();
  ASSERT_TRUE(state);
  EXPECT_EQ(state->gdt_limit, 31);
  for (const SegmentRegister* segment : {&state->code, &state->data, &state->task}) {
    const auto entry = guest_value<uint64_t>(ram_, state->gdt.raw + segment->selector);
    const auto limit = static_cast<uint32_t>((entry & 0xffff) | (entry >> 32 & 0xf0000));
    EXPECT_EQ(segment->granular ? limit << 12 | 0xfff : limit, segment->limit);
    EXPECT_EQ(entry >> 40 & 0xf, segment->type);
    EXPECT_EQ((entry >> 44 & 1) != 0, segment->code_or_data);
    EXPECT_EQ(entry >> 47 & 1, 1u);  // present
    EXPECT_EQ((entry >> 54 & 1) != 0, segment->is_32_bit);
    EXPECT_EQ((entry >> 55 & 1) != 0, segment->granular);
  }
}

TEST_F(PvhLoad, CommandLineMayFillItsRoomAndNoMore) {
  EXPECT_TRUE(boot(std::string(kMaxCommandLine, 'x')));
  EXPECT_EQ(ram_[kBootAreaEnd.raw - 1], 0);
  EXPECT_EQ(ram_[kBootAreaEnd.raw], 0xcc);
  EXPECT_THAT(load_refusal(std::string(kMaxCommandLine + 1, 'x')), HasSubstr("command line"));
  EXPECT_THAT(load_refusal(std::string_view("a\0b", 3)), HasSubstr("without a zero"));
  EXPECT_TRUE(boot(""));
}

TEST_F(PvhLoad, SegmentOutsideRamSaysHowMuchIsNeeded) {
  fake_.programs[1].p_memsz = 6 * kMiB + 1;
  fake_.programs[1].p_paddr = 2 * kMiB;
  EXPECT_THAT(load_refusal(), HasSubstr("needs 9 MiB, the machine has 4 MiB: use --memory"));
  fake_.programs[1].p_paddr = 0xf0000000;
  EXPECT_THAT(load_refusal(), HasSubstr("above the 3072 MiB"));
}

TEST_F(PvhLoad, SizeNeededIsThatOfTheHighestSegment) {
  fake_.programs.push_back({PT_LOAD, PF_R, 0, 0, 20 * kMiB, 0, 1, 1});
  fake_.programs[1].p_memsz = 8 * kMiB;
  fake_.header.e_phnum = 4;
  EXPECT_THAT(load_refusal(), HasSubstr("needs 21 MiB"));
}

TEST_F(PvhLoad, SegmentMayEndWhereRamEnds) {
  fake_.programs[1].p_memsz = 2 * kMiB;
  fake_.reprise.flags = 0;
  EXPECT_TRUE(boot());
  fake_.programs[1].p_memsz += 1;
  EXPECT_FALSE(boot());
}

TEST_F(PvhLoad, PrivateRangeOutsideRamIsRefused) {
  fake_.reprise.private_end = 4 * kMiB + kPageSize;
  EXPECT_THAT(load_refusal(), HasSubstr("the private range"));
  EXPECT_THAT(load_refusal(), HasSubstr("needs 5 MiB"));
  fake_.reprise.private_begin = fake_.reprise.private_end = fake_.reprise.clock = ~0xfffull;
  fake_.reprise.flags = 0;
  EXPECT_THAT(load_refusal(), HasSubstr("the private range"));
}

TEST_F(PvhLoad, TrapPageInsideRamIsRefused) {
  fake_.reprise.trap = 4 * kMiB - kPageSize;
  EXPECT_THAT(load_refusal(), HasSubstr("trap page"));
  fake_.reprise.trap = 4 * kMiB;
  EXPECT_TRUE(boot());
}

TEST_F(PvhLoad, ImpossibleMachineIsRefused) {
  elf_ = fake_.bytes();
  const auto image = parse_image(elf_);
  for (const uint64_t bytes : std::initializer_list<uint64_t>{0, kMiB, 4 * kMiB + 1, 3073 * kMiB, ~0ull}) {
    const auto status = check_fits(*image, bytes);
    ASSERT_FALSE(status) << bytes;
    EXPECT_EQ(status.error().code, ErrorCode::kUsage);
  }
}

}  // namespace
}  // namespace reprise::vmm
