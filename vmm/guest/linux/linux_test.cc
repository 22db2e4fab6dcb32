// From a kernel file to the state in which it starts: unpacking, loading.
#include "vmm/guest/linux/linux.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "vmm/guest/elf_image_fake.h"
#include "vmm/guest/guest_ram_fake.h"
#include "vmm/guest/linux/acpi.h"
#include "vmm/guest/linux/kernel_unpack.h"

namespace reprise::vmm {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1 << 30;

// An ELF file with a segment of code at 1 MiB, one of data at 2 MiB, and one section: the code.
Bytes fake_kernel(const std::function<void(FakeElfImage&)>& change = [](FakeElfImage&) {}) {
  FakeElfImage fake;
  fake.code = {0x0f, 0x31, 0xf4, 0xeb, 0xfd};  // rdtsc; 1: hlt; jmp 1b
  fake.programs[0].p_filesz = fake.code.size();
  fake.header.e_entry = 0x100002;
  fake.header.e_shoff = fake.bytes().size();
  fake.header.e_shentsize = sizeof(Elf64_Shdr);
  fake.header.e_shnum = 1;
  change(fake);
  const Elf64_Shdr section = {.sh_type = SHT_PROGBITS,
                              .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                              .sh_offset = FakeElfImage::kCodeOffset,
                              .sh_size = fake.code.size()};
  Bytes file = fake.bytes();
  const auto* begin = reinterpret_cast<const uint8_t*>(&section);
  file.insert(file.end(), begin, begin + sizeof(section));
  return file;
}

Error refusal(const LinuxGuest& guest) {
  const Ram ram(guest.memory_bytes);
  const auto loaded = load_linux(guest, ram.bytes());
  EXPECT_FALSE(loaded);
  return loaded ? Error{} : loaded.error();
}

Error refusal(const std::function<void(FakeElfImage&)>& change) {
  const Bytes kernel = fake_kernel(change);
  return refusal(LinuxGuest{.kernel = kernel, .memory_bytes = 64 * kMiB});
}

// --- memory ---

static_assert(linux_ram(64 * kMiB).bytes == 64 * kMiB);
static_assert(linux_ram(3 * kGiB).bytes == 3 * kGiB);
static_assert(linux_ram(3 * kGiB + kMiB).bytes == 4 * kGiB + kMiB);
static_assert(linux_ram(kMaxLinuxRamBytes).bytes == 64 * kGiB);

TEST(LinuxLoad, ImpossibleMemoryIsRefused) {
  const Bytes kernel = fake_kernel();
  Bytes nothing;
  for (const uint64_t bytes :
       {uint64_t{0}, kMiB, 63 * kMiB, 64 * kMiB - 1, 64 * kMiB + kPageSize, 63 * kGiB + kMiB, ~uint64_t{0}}) {
    const auto loaded = load_linux({.kernel = kernel, .memory_bytes = bytes}, nothing);
    ASSERT_FALSE(loaded) << bytes;
    EXPECT_EQ(loaded.error().code, ErrorCode::kUsage);
    EXPECT_THAT(loaded.error().message, HasSubstr("64 to 64512 MiB are possible"));
  }
}

// e820 entries: address, size, type.
using Entries = std::vector<std::tuple<uint64_t, uint64_t, uint32_t>>;

Entries memory_map(uint64_t memory_bytes) {
  const Bytes kernel = fake_kernel();
  const Ram ram(memory_bytes);
  const auto loaded = load_linux({.kernel = kernel, .memory_bytes = memory_bytes}, ram.bytes());
  EXPECT_TRUE(loaded) << loaded.error().message;
  Entries entries;
  for (uint64_t i = 0; i < ram.get<uint8_t>(0x101e8); ++i) {
    const uint64_t at = 0x102d0 + 20 * i;
    entries.emplace_back(ram.get<uint64_t>(at), ram.get<uint64_t>(at + 8), ram.get<uint32_t>(at + 16));
  }
  return entries;
}

TEST(LinuxLoad, MemoryMapLeavesOutTheFirmware) {
  EXPECT_EQ(memory_map(64 * kMiB), (Entries{{0, 0x9fc00, 1}, {0xe0000, 0x20000, 2}, {kMiB, 63 * kMiB, 1}}));
  EXPECT_EQ(memory_map(3 * kGiB),
            (Entries{{0, 0x9fc00, 1}, {0xe0000, 0x20000, 2}, {kMiB, 3 * kGiB - kMiB, 1}}));
}

TEST(LinuxLoad, MemoryBeyondThreeGigabytesGoesAboveTheHole) {
  EXPECT_EQ(
      memory_map(5 * kGiB),
      (Entries{{0, 0x9fc00, 1}, {0xe0000, 0x20000, 2}, {kMiB, 3 * kGiB - kMiB, 1}, {4 * kGiB, 2 * kGiB, 1}}));
}

// --- the command line ---

TEST(LinuxLoad, UsersWordsComeLast) {
  EXPECT_THAT(linux_command_line("console=ttyS0 quiet"), EndsWith(" console=ttyS0 quiet"));
  EXPECT_THAT(linux_command_line(""), HasSubstr("tsc=reliable "));
}

TEST(LinuxLoad, CommandLineMustFit) {
  const Bytes kernel = fake_kernel();
  const size_t room = kMaxLinuxCommandLine - linux_command_line("").size();
  const std::string longest(room, 'x');
  const Ram ram(64 * kMiB);
  ASSERT_TRUE(
      load_linux({.kernel = kernel, .command_line = longest, .memory_bytes = 64 * kMiB}, ram.bytes()));
  EXPECT_EQ(ram.text(ram.get<uint32_t>(0x10228)), linux_command_line(longest));
  for (const std::string& line : {longest + 'x', std::string("a\0b", 3)}) {
    const Error error =
        refusal(LinuxGuest{.kernel = kernel, .command_line = line, .memory_bytes = 64 * kMiB});
    EXPECT_EQ(error.code, ErrorCode::kUsage);
    EXPECT_THAT(error.message, HasSubstr("at most 2047"));
  }
}

// --- the kernel ---

TEST(LinuxLoad, KernelStartsAtItsEntryWithTheBootParams) {
  const Bytes kernel = fake_kernel();
  const Ram ram(64 * kMiB);
  const auto loaded = load_linux({.kernel = kernel, .memory_bytes = 64 * kMiB}, ram.bytes());
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->boot.entry, Gpa(0x100002));
  EXPECT_EQ(loaded->boot.rsi, 0x10000u);
  EXPECT_EQ(loaded->patches.rdtsc, 1u);
  EXPECT_EQ(ram.get<uint64_t>(0x100000), 0xfdebf4e0e5u);  // patched
  EXPECT_EQ(ram.text(0x200000, 6), std::string("\1\2\3\4\5\0", 6));
  // struct boot_params. Source: zero-page.rst.
  EXPECT_EQ(ram.get<uint64_t>(0x10070), 0xe0000u);  // acpi_rsdp_addr
  EXPECT_EQ(ram.get<uint16_t>(0x101fe), 0xaa55u);   // boot_flag
  EXPECT_EQ(ram.text(0x10202, 4), "HdrS");          //
  EXPECT_GE(ram.get<uint16_t>(0x10206), 0x20cu);    // version: 64-bit entry
  EXPECT_EQ(ram.get<uint8_t>(0x10210), 0xffu);      // type_of_loader
  EXPECT_EQ(ram.get<uint8_t>(0x10211), 0x01u);      // loadflags
  EXPECT_EQ(ram.get<uint32_t>(0x10218), 0u);        // no initrd
  EXPECT_EQ(ram.get<uint32_t>(0x1021c), 0u);        //
  EXPECT_EQ(ram.text(ram.get<uint32_t>(0x10228)), linux_command_line(""));
}

TEST(LinuxLoad, KernelStartsIn64BitsWithFourGigabytesMapped) {
  const Bytes kernel = fake_kernel();
  const Ram ram(64 * kMiB);
  const auto loaded = load_linux({.kernel = kernel, .memory_bytes = 64 * kMiB}, ram.bytes());
  ASSERT_TRUE(loaded);
  const BootState& boot = loaded->boot;
  EXPECT_EQ(boot.cr0 & 0x80000001, 0x80000001u);
  EXPECT_EQ(boot.cr4 & 0x20, 0x20u);
  EXPECT_EQ(boot.efer & 0x500, 0x500u);
  EXPECT_TRUE(boot.code.is_64_bit);
  EXPECT_EQ(boot.rflags & 0x200, 0u);  // no interrupts
  // Every segment is the descriptor of its selector.
  EXPECT_EQ(boot.gdt_limit, 31u);
  EXPECT_EQ(ram.get<uint64_t>(boot.gdt.raw + boot.code.selector), 0x00af9b000000ffffu);
  EXPECT_EQ(ram.get<uint64_t>(boot.gdt.raw + boot.data.selector), 0x00cf93000000ffffu);
  // Walks as the processor does.
  const auto translated = [&](uint64_t address) {
    const auto level4 = ram.get<uint64_t>(boot.cr3 + 8 * (address >> 39 & 511));
    const auto level3 = ram.get<uint64_t>((level4 & ~0xfffull) + 8 * (address >> 30 & 511));
    const auto level2 = ram.get<uint64_t>((level3 & ~0xfffull) + 8 * (address >> 21 & 511));
    EXPECT_EQ(level4 & level3 & level2 & 3, 3u) << address;
    EXPECT_EQ(level2 & 0x80, 0x80u) << address;
    return (level2 & ~0x1fffffull) | (address & 0x1fffff);
  };
  for (const uint64_t address :
       {0ull, 0x100002ull, 0x10000ull, 0x3fffffffull, 0x40000000ull, 0xc0000123ull, 0xffffffffull})
    EXPECT_EQ(translated(address), address);
}

TEST(LinuxLoad, SeedIsThereAndAlwaysTheSame) {
  const Bytes kernel = fake_kernel();
  const auto seed = [&kernel] {
    const Ram ram(64 * kMiB);
    EXPECT_TRUE(load_linux({.kernel = kernel, .memory_bytes = 64 * kMiB}, ram.bytes()));
    const auto at = ram.get<uint64_t>(0x10250);  // setup_data
    EXPECT_EQ(ram.get<uint64_t>(at), 0u);        // the only one
    EXPECT_EQ(ram.get<uint32_t>(at + 8), 9u);    // SETUP_RNG_SEED
    EXPECT_EQ(ram.get<uint32_t>(at + 12), 32u);
    return ram.text(at + 16, 32);
  };
  EXPECT_EQ(seed(), seed());
  EXPECT_NE(seed(), std::string(32, '\0'));
}

TEST(LinuxLoad, ClockPageOfProgramsIsSignedAndNoMemoryOfTheKernels) {
  const Bytes kernel = fake_kernel();
  const Ram ram(64 * kMiB);
  ASSERT_TRUE(load_linux({.kernel = kernel, .memory_bytes = 64 * kMiB}, ram.bytes()));
  EXPECT_EQ(ram.get<uint64_t>(kProgramClock.raw), 0u);
  EXPECT_EQ(ram.get<uint64_t>(kProgramClock.raw + 8), ~uint64_t{0});
  EXPECT_EQ(ram.text(kProgramClock.raw + 24, 8), "Reprise1");
  for (const auto& [address, size, type] : memory_map(5 * kGiB))
    for (const Gpa page : {kProgramClock, kProgramTrap})
      EXPECT_TRUE(page.raw + kPageSize <= address || page.raw >= address + size);
}

TEST(LinuxLoad, EntryMustBeInSomethingLoaded) {
  for (const uint64_t entry :
       {0x0ull, 0xfffffull, 0x100005ull, 0x200005ull, 0x208000ull, ~0ull}) {  // the last but one: bss
    const Error error = refusal([entry](FakeElfImage& fake) { fake.header.e_entry = entry; });
    EXPECT_EQ(error.code, ErrorCode::kBadImage);
    EXPECT_THAT(error.message, HasSubstr("entry point")) << entry;
  }
}

TEST(LinuxLoad, KernelMustFitIntoMemory) {
  const Error error = refusal([](FakeElfImage& fake) { fake.programs[1].p_memsz = 62 * kMiB + 1; });
  EXPECT_EQ(error.code, ErrorCode::kBadImage);
  EXPECT_THAT(error.message, HasSubstr("needs 65 MiB, the machine has 64 MiB"));
  // Nor may it lie in the hole, be there as much as it wants.
  const Bytes kernel = fake_kernel([](FakeElfImage& fake) { fake.programs[1].p_paddr = kLowRamEnd; });
  EXPECT_EQ(refusal(LinuxGuest{.kernel = kernel, .memory_bytes = 8 * kGiB}).code, ErrorCode::kBadImage);
}

TEST(LinuxLoad, KernelMayFillMemory) {
  const Bytes kernel = fake_kernel([](FakeElfImage& fake) { fake.programs[1].p_memsz = 62 * kMiB; });
  const Ram ram(64 * kMiB);
  EXPECT_TRUE(load_linux({.kernel = kernel, .memory_bytes = 64 * kMiB}, ram.bytes()));
}

TEST(LinuxLoad, OtherKernelsAreRefused) {
  EXPECT_THAT(refusal(LinuxGuest{.memory_bytes = 64 * kMiB}).message, HasSubstr("not an ELF"));
  EXPECT_THAT(refusal([](FakeElfImage& fake) { fake.header.e_shnum = 0; }).message,
              HasSubstr("no section headers"));
  EXPECT_THAT(refusal([](FakeElfImage& fake) { fake.header.e_phnum = 0; }).message,
              HasSubstr("no program headers"));
  EXPECT_THAT(refusal([](FakeElfImage& fake) { fake.programs[1].p_paddr = 0x90000; }).message,
              HasSubstr("boot information"));
  EXPECT_THAT(refusal([](FakeElfImage& fake) { fake.programs[0].p_offset = ~0ull; }).message,
              HasSubstr("truncated"));
}

// A segment of no size is not loaded, and so its bounds are nobody's business.
TEST(LinuxLoad, EmptySegmentAnywhereIsHarmless) {
  const Bytes kernel = fake_kernel([](FakeElfImage& fake) {
    fake.programs.insert(fake.programs.begin(),
                         {PT_LOAD, 0, FakeElfImage::kCodeOffset, 0, 0 - uint64_t{5}, 5, 0, 0});
    fake.header.e_phnum = 4;
  });
  const Ram ram(64 * kMiB);
  EXPECT_TRUE(load_linux({.kernel = kernel, .memory_bytes = 64 * kMiB}, ram.bytes()));
}

// --- the initial RAM disk ---

// Where it is after loading.
uint64_t initrd_address(const Bytes& initrd, uint64_t memory_bytes) {
  const Bytes kernel = fake_kernel();
  const Ram ram(memory_bytes);
  const auto loaded =
      load_linux({.kernel = kernel, .initrd = initrd, .memory_bytes = memory_bytes}, ram.bytes());
  EXPECT_TRUE(loaded) << loaded.error().message;
  const uint64_t at = ram.get<uint32_t>(0x10218);
  EXPECT_EQ(ram.get<uint32_t>(0x1021c), initrd.size());
  EXPECT_TRUE(std::ranges::equal(ram.bytes().subspan(at, initrd.size()), initrd));
  return at;
}

Bytes some_bytes(size_t size) {
  Bytes bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

TEST(LinuxLoad, InitrdIsInTheLastPages) {
  EXPECT_EQ(initrd_address(some_bytes(1), 64 * kMiB), 64 * kMiB - kPageSize);
  EXPECT_EQ(initrd_address(some_bytes(kPageSize), 64 * kMiB), 64 * kMiB - kPageSize);
  EXPECT_EQ(initrd_address(some_bytes(kPageSize + 1), 64 * kMiB), 64 * kMiB - 2 * kPageSize);
}

TEST(LinuxLoad, InitrdIsBelowTheHole) {
  EXPECT_EQ(initrd_address(some_bytes(5), 5 * kGiB), 3 * kGiB - kPageSize);
}

TEST(LinuxLoad, InitrdMustFitAboveTheKernel) {
  const Bytes kernel = fake_kernel();  // up to 0x210000
  const uint64_t room = 64 * kMiB - 0x210000;
  EXPECT_EQ(initrd_address(Bytes(room), 64 * kMiB), 0x210000u);
  for (const uint64_t bytes : {room + 1, uint64_t{64 * kMiB}, uint64_t{65 * kMiB}}) {
    const Bytes initrd(bytes);
    const Error error = refusal(LinuxGuest{.kernel = kernel, .initrd = initrd, .memory_bytes = 64 * kMiB});
    EXPECT_EQ(error.code, ErrorCode::kBadImage);
    EXPECT_THAT(error.message, HasSubstr("do not fit into 64 MiB"));
  }
}

TEST(LinuxLoad, InitrdDoesNotReachIntoTheKernelsLastPage) {
  const Bytes kernel = fake_kernel([](FakeElfImage& fake) { fake.programs[1].p_memsz = 0x10001; });
  const Bytes fits(64 * kMiB - 0x211000, 0x55);
  const Bytes touches(fits.size() + 1, 0x55);  // as bytes there is room, as pages there is none
  const Ram ram(64 * kMiB);
  EXPECT_TRUE(load_linux({.kernel = kernel, .initrd = fits, .memory_bytes = 64 * kMiB}, ram.bytes()));
  EXPECT_EQ(ram.get<uint8_t>(0x210000), 0u);
  EXPECT_THAT(refusal(LinuxGuest{.kernel = kernel, .initrd = touches, .memory_bytes = 64 * kMiB}).message,
              HasSubstr("do not fit"));
}

// --- unpacking ---

using Filter = int (*)(archive*);

Bytes packed(const Bytes& content, Filter filter) {
  Bytes result(content.size() + 65536);
  size_t used = 0;
  archive* writer = archive_write_new();
  EXPECT_EQ(filter(writer), ARCHIVE_OK) << archive_error_string(writer);
  EXPECT_EQ(archive_write_set_format_raw(writer), ARCHIVE_OK);
  EXPECT_EQ(archive_write_open_memory(writer, result.data(), result.size(), &used), ARCHIVE_OK);
  archive_entry* entry = archive_entry_new();
  archive_entry_set_filetype(entry, AE_IFREG);
  EXPECT_EQ(archive_write_header(writer, entry), ARCHIVE_OK);
  EXPECT_EQ(archive_write_data(writer, content.data(), content.size()),
            static_cast<la_ssize_t>(content.size()));
  EXPECT_EQ(archive_write_close(writer), ARCHIVE_OK);
  archive_entry_free(entry);
  archive_write_free(writer);
  result.resize(used);
  return result;
}

template <typename T>
void put(Bytes& bytes, size_t at, T value) {
  std::memcpy(&bytes.at(at), &value, sizeof(value));
}

// The size of what is packed, as the kernel's Makefile appends it (but to gzip's output, which ends so
// anyhow).
Bytes with_size(Bytes payload, uint64_t size) {
  for (unsigned i = 0; i < 4; ++i) payload.push_back(static_cast<uint8_t>(size >> (8 * i)));
  return payload;
}

constexpr size_t kSectorBytes = 512;

// Two sectors of setup, then code, the payload, and more code.
Bytes big_zimage(const Bytes& payload) {
  constexpr uint32_t kCodeBytes = 100;
  Bytes file(3 * kSectorBytes + kCodeBytes);
  file[0x1f1] = 2;
  put(file, 0x202, uint32_t{0x53726448});
  put(file, 0x206, uint16_t{0x20f});
  put(file, 0x248, kCodeBytes);
  put(file, 0x24c, static_cast<uint32_t>(payload.size()));
  file.insert(file.end(), payload.begin(), payload.end());
  file.resize(file.size() + 1000, 0xcc);
  return file;
}

// Something with a structure, larger than any buffer on the way.
Bytes content() {
  Bytes bytes = {0x7f, 'E', 'L', 'F'};
  uint32_t state = 1;
  while (bytes.size() < 300'000) {
    state = state * 1664525 + 1013904223;
    bytes.push_back(bytes.size() % 3 == 0 ? static_cast<uint8_t>(state >> 24) : 0);
  }
  return bytes;
}

std::string unpack_refusal(const Bytes& file) {
  const auto unpacked = unpack_kernel(file);
  if (unpacked) return "";
  EXPECT_EQ(unpacked.error().code, ErrorCode::kBadImage);
  return unpacked.error().message;
}

TEST(KernelUnpack, ElfFileIsGivenBack) {
  const Bytes kernel = fake_kernel();
  EXPECT_EQ(unpack_kernel(kernel).value(), kernel);
  const Bytes header = {0x7f, 'E', 'L', 'F'};  // whether it is a good one is for others to say
  EXPECT_EQ(unpack_kernel(header).value(), header);
}

TEST(KernelUnpack, OtherFilesAreRefused) {
  EXPECT_THAT(unpack_refusal({}), HasSubstr("neither a bzImage"));
  EXPECT_THAT(unpack_refusal(Bytes(10'000)), HasSubstr("neither a bzImage"));
  EXPECT_THAT(unpack_refusal({0x7f, 'E', 'L'}), HasSubstr("neither a bzImage"));
  Bytes file = big_zimage({});
  EXPECT_THAT(unpack_refusal(file), HasSubstr("no kernel in it"));  // as memtest86+ is
  file.resize(0x205);
  EXPECT_THAT(unpack_refusal(file), HasSubstr("neither a bzImage"));
}

struct Compression {
  const char* name;
  Filter filter;
  bool size_appended;
};

class KernelUnpackTest : public ::testing::TestWithParam<Compression> {
 protected:
  static Bytes payload(const Bytes& bytes) {
    Bytes result = packed(bytes, GetParam().filter);
    return GetParam().size_appended ? with_size(std::move(result), bytes.size()) : result;
  }
};

TEST_P(KernelUnpackTest, PayloadIsUnpacked) {
  const auto unpacked = unpack_kernel(big_zimage(payload(content())));
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_TRUE(*unpacked == content());
}

TEST_P(KernelUnpackTest, SmallPayloadIsUnpacked) {
  const Bytes small = fake_kernel();
  const auto unpacked = unpack_kernel(big_zimage(payload(small)));
  ASSERT_TRUE(unpacked) << unpacked.error().message;
  EXPECT_TRUE(*unpacked == small);
}

TEST_P(KernelUnpackTest, CutPayloadIsRefused) {
  Bytes half = packed(content(), GetParam().filter);
  half.resize(half.size() / 2);
  EXPECT_THAT(unpack_refusal(big_zimage(with_size(half, content().size()))), HasSubstr("kernel"));
}

TEST_P(KernelUnpackTest, PayloadThatIsSmallerThanItSaysIsRefused) {
  EXPECT_NE(unpack_refusal(big_zimage(with_size(packed(content(), GetParam().filter), content().size() + 1))),
            "");
}

INSTANTIATE_TEST_SUITE_P(Compressions, KernelUnpackTest,
                         ::testing::Values(Compression{"gzip", archive_write_add_filter_gzip, false},
                                           Compression{"bzip2", archive_write_add_filter_bzip2, true},
                                           Compression{"xz", archive_write_add_filter_xz, true},
                                           Compression{"lzma", archive_write_add_filter_lzma, true},
                                           Compression{"lz4", archive_write_add_filter_lz4, true},
                                           Compression{"zstd", archive_write_add_filter_zstd, true}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(KernelUnpack, TruncatedFileIsRefused) {
  const Bytes payload = with_size(packed(content(), archive_write_add_filter_xz), content().size());
  const Bytes file = big_zimage(payload);
  for (const size_t size : {size_t{0x250}, 3 * kSectorBytes, 3 * kSectorBytes + 100 + payload.size() - 1}) {
    const Bytes cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_THAT(unpack_refusal(cut), HasSubstr("the kernel is truncated")) << size;
  }
  const Bytes header(file.begin(), file.begin() + 0x24f);
  EXPECT_NE(unpack_refusal(header), "");
}

TEST(KernelUnpack, PayloadOutsideTheFileIsRefused) {
  Bytes file = big_zimage(Bytes(100));
  put(file, 0x248, ~0u);
  EXPECT_THAT(unpack_refusal(file), HasSubstr("truncated"));
  file = big_zimage(Bytes(100));
  put(file, 0x24c, ~0u);
  EXPECT_THAT(unpack_refusal(file), HasSubstr("truncated"));
  for (const size_t size : {1, 3})
    EXPECT_THAT(unpack_refusal(big_zimage(Bytes(size))), HasSubstr("truncated"));
}

TEST(KernelUnpack, UnknownCompressionIsRefused) {
  EXPECT_NE(unpack_refusal(big_zimage(with_size({}, 100))), "");
  EXPECT_NE(unpack_refusal(big_zimage(with_size(some_bytes(1000), 100'000))), "");
}

TEST(KernelUnpack, ImpossibleSizeIsRefused) {
  EXPECT_THAT(
      unpack_refusal(big_zimage(with_size(packed(content(), archive_write_add_filter_zstd), (1u << 30) + 1))),
      HasSubstr("that cannot be"));
}

TEST(KernelUnpack, OldBootProtocolIsRefused) {
  Bytes file = big_zimage(with_size(packed(content(), archive_write_add_filter_xz), content().size()));
  put(file, 0x206, uint16_t{0x207});
  EXPECT_THAT(unpack_refusal(file), HasSubstr("2.08"));
}

TEST(KernelUnpack, NoSetupSectorsMeansFour) {
  const Bytes payload = with_size(packed(content(), archive_write_add_filter_xz), content().size());
  Bytes file = big_zimage(payload);
  file[0x1f1] = 0;
  file.insert(file.begin() + 3 * kSectorBytes, 2 * kSectorBytes, 0);
  EXPECT_TRUE(unpack_kernel(file).value() == content());
}

TEST(KernelUnpack, DamagedPayloadIsRefused) {
  Bytes payload = packed(content(), archive_write_add_filter_xz);
  for (size_t at = payload.size() / 2; at < payload.size() / 2 + 64; ++at) payload[at] ^= 0xff;
  EXPECT_THAT(unpack_refusal(big_zimage(with_size(payload, content().size()))), HasSubstr("damaged"));
}

}  // namespace
}  // namespace reprise::vmm
