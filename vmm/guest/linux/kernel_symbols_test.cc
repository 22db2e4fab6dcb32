// What a debugger gets to know of a Linux kernel: the file that is written is read back with libelf, as GDB
// would.
#include "vmm/guest/linux/kernel_symbols.h"

#include <fcntl.h>
#include <gelf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "base/unique_fd.h"
#include "vmm/guest/linux/kernel_elf_fake.h"

namespace reprise::vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kText = kFakeBase, kTextBytes = 0x3000;
constexpr uint64_t kReadOnly = kFakeBase + 0x1000000;
constexpr uint64_t kData = kFakeBase + 0x1a00000, kDataBytes = 0x2000;

std::vector<FakeSymbol> some_symbols() {
  std::vector<FakeSymbol> symbols = {{"T_text", kText}};
  for (uint32_t i = 0; i < 300; ++i)
    symbols.push_back({"Tfunction_" + std::to_string(i), kText + 0x20ull * i});
  symbols.push_back({"thelper", kText + 0x2ff0});
  symbols.push_back({"Dvariable", kData + 8});
  symbols.push_back({"dcounter", kData + 0x1ff8});
  return symbols;
}

// Text, read-only data with kallsyms, data without bytes in the file, and per-CPU variables, which are linked
// at 0.
FakeKernelElf some_kernel(const std::vector<FakeSymbol>& symbols = some_symbols()) {
  FakeKernelElf kernel;
  (void)kernel.add_memory(".text", SHF_EXECINSTR, kText, 0, std::vector<uint8_t>(kTextBytes, 0x90));
  (void)kernel.add_memory(".rodata", 0, kReadOnly, 0, fake_kallsyms(symbols, KallsymsLayout::kOffsetsFirst));
  (void)kernel.add_memory(".data", SHF_WRITE, kData, kDataBytes);
  (void)kernel.add_memory(".data..percpu", SHF_WRITE, 0, 0x2000);
  kernel.add_build_id("this very kernel");
  return kernel;
}

FakeKernelElf without_kallsyms() {
  FakeKernelElf kernel;
  (void)kernel.add_memory(".text", SHF_EXECINSTR, kText, 0, std::vector<uint8_t>(kTextBytes, 0x90));
  kernel.add_build_id("this very kernel");
  return kernel;
}

// As a debugging package has it: linked at `text`, not stripped.
FakeKernelElf vmlinux(uint64_t text, std::string_view build_id = "this very kernel") {
  FakeKernelElf kernel;
  (void)kernel.add_memory(".text", SHF_EXECINSTR, text, 0, std::vector<uint8_t>(kTextBytes, 0x90));
  kernel.add_build_id(build_id);
  kernel.add_symbol_table("_text", text);
  return kernel;
}

struct ReadSymbol {
  Elf64_Sym symbol;
  std::string section;
};

// A file as a debugger reads it.
struct ReadFile {
  std::vector<std::string> section_names;  // those that have a place in memory, in order
  std::map<std::string, GElf_Shdr> sections;
  std::map<std::string, ReadSymbol> symbols;
  uint32_t locals = 0;  // symbols in front of the first global one, the empty one included
  std::vector<unsigned> bindings;
};

void read_symbols(Elf* elf, Elf_Scn* table, const GElf_Shdr& header, ReadFile& file) {
  file.locals = header.sh_info;
  size_t names = 0;
  ASSERT_EQ(::elf_getshdrstrndx(elf, &names), 0);
  Elf_Data* const data = ::elf_getdata(table, nullptr);
  for (int i = 0; i < static_cast<int>(header.sh_size / header.sh_entsize); ++i) {
    GElf_Sym symbol;
    ASSERT_NE(::gelf_getsym(data, i, &symbol), nullptr);
    file.bindings.push_back(GELF_ST_BIND(symbol.st_info));
    GElf_Shdr place;
    if (i > 0) {
      ASSERT_NE(::gelf_getshdr(::elf_getscn(elf, symbol.st_shndx), &place), nullptr);
      file.symbols[::elf_strptr(elf, header.sh_link, symbol.st_name)] = {
          symbol, ::elf_strptr(elf, names, place.sh_name)};
    }
  }
}

ReadFile read_back(const std::filesystem::path& path) {
  ReadFile file;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Elf* const elf = ::elf_begin(fd.get(), ELF_C_READ, nullptr);
  EXPECT_EQ(::elf_kind(elf), ELF_K_ELF);
  GElf_Ehdr whole;
  EXPECT_NE(::gelf_getehdr(elf, &whole), nullptr);
  EXPECT_EQ(whole.e_machine, EM_X86_64);
  EXPECT_EQ(whole.e_type, ET_EXEC);
  size_t names = 0;
  EXPECT_EQ(::elf_getshdrstrndx(elf, &names), 0);
  for (Elf_Scn* each = ::elf_nextscn(elf, nullptr); each != nullptr; each = ::elf_nextscn(elf, each)) {
    GElf_Shdr header;
    EXPECT_NE(::gelf_getshdr(each, &header), nullptr);
    const std::string name = ::elf_strptr(elf, names, header.sh_name);
    if ((header.sh_flags & SHF_ALLOC) != 0) file.section_names.push_back(name);
    file.sections[name] = header;
    if (header.sh_type == SHT_SYMTAB) read_symbols(elf, each, header, file);
  }
  (void)::elf_end(elf);
  return file;
}

class KernelSymbolsTest : public ::testing::Test {
 protected:
  KernelSymbolsTest() {
    std::string name = ::testing::TempDir() + "kernel-symbols-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~KernelSymbolsTest() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::filesystem::path file(const std::vector<uint8_t>& content) const {
    auto path = folder_ / "vmlinux";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    return path;
  }
  [[nodiscard]] ReadFile written(const std::vector<uint8_t>& kernel, uint32_t symbols) const {
    const auto count = write_kernel_symbols(kernel, folder_ / "symbols");
    EXPECT_TRUE(count.has_value()) << count.error().message;
    EXPECT_EQ(count.value_or(0), symbols);
    return read_back(folder_ / "symbols");
  }
  void expect_refused(const std::vector<uint8_t>& kernel, ErrorCode code, std::string_view why) const {
    const auto count = write_kernel_symbols(kernel, folder_ / "symbols");
    ASSERT_FALSE(count.has_value());
    EXPECT_EQ(count.error().code, code);
    EXPECT_THAT(count.error().message, HasSubstr(why));
  }
  void expect_no_offset(const std::vector<uint8_t>& kernel, const std::vector<uint8_t>& vmlinux,
                        ErrorCode code, std::string_view why) const {
    const auto offset = offset_of_vmlinux(kernel, file(vmlinux));
    ASSERT_FALSE(offset.has_value());
    EXPECT_EQ(offset.error().code, code);
    EXPECT_THAT(offset.error().message, HasSubstr(why));
  }

  std::filesystem::path folder_;
};

TEST_F(KernelSymbolsTest, SymbolsHaveTheirAddressesAndSections) {
  const auto symbols = some_symbols();
  const ReadFile read = written(some_kernel().bytes(), static_cast<uint32_t>(symbols.size()));
  EXPECT_EQ(read.symbols.size(), symbols.size());
  for (const FakeSymbol& symbol : symbols) {
    const auto found = read.symbols.find(symbol.name.substr(1));
    ASSERT_NE(found, read.symbols.end()) << symbol.name;
    EXPECT_EQ(found->second.symbol.st_value, symbol.address) << symbol.name;
    EXPECT_EQ(found->second.section, symbol.address < kReadOnly ? ".text" : ".data") << symbol.name;
  }
}

TEST_F(KernelSymbolsTest, SectionsHaveTheirPlacesAndNoBytes) {
  const ReadFile read = written(some_kernel().bytes(), 304);
  // Those in the kernel's half of the addresses.
  EXPECT_THAT(read.section_names, ElementsAre(".text", ".rodata", ".data"));
  const GElf_Shdr& text = read.sections.at(".text");
  EXPECT_EQ(text.sh_type, SHT_NOBITS);
  EXPECT_EQ(text.sh_addr, kText);
  EXPECT_EQ(text.sh_size, kTextBytes);
  EXPECT_EQ(text.sh_flags, SHF_ALLOC | SHF_EXECINSTR);
  const GElf_Shdr& data = read.sections.at(".data");
  EXPECT_EQ(data.sh_type, SHT_NOBITS);
  EXPECT_EQ(data.sh_addr, kData);
  EXPECT_EQ(data.sh_size, kDataBytes);
  EXPECT_EQ(data.sh_flags, SHF_ALLOC | SHF_WRITE);
}

TEST_F(KernelSymbolsTest, TypeLettersBecomeBindingsAndTypes) {
  const ReadFile read = written(some_kernel().bytes(), 304);
  const auto info = [&](const std::string& name) { return read.symbols.at(name).symbol.st_info; };
  EXPECT_EQ(info("function_7"), ELF64_ST_INFO(STB_GLOBAL, STT_FUNC));
  EXPECT_EQ(info("helper"), ELF64_ST_INFO(STB_LOCAL, STT_FUNC));
  EXPECT_EQ(info("variable"), ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT));
  EXPECT_EQ(info("counter"), ELF64_ST_INFO(STB_LOCAL, STT_OBJECT));
}

// System V ABI: all local symbols are in front of the others, and sh_info says where those begin.
TEST_F(KernelSymbolsTest, LocalSymbolsAreInFrontOfTheOthers) {
  const ReadFile read = written(some_kernel().bytes(), 304);
  ASSERT_EQ(read.locals, 3u);
  for (size_t i = 0; i < read.bindings.size(); ++i)
    EXPECT_EQ(read.bindings[i], i < read.locals ? STB_LOCAL : STB_GLOBAL) << i;
}

TEST_F(KernelSymbolsTest, SymbolsOutsideOfAllSectionsAreLeftOut) {
  auto symbols = some_symbols();
  symbols.push_back({"Acpu_number", 0x1000});          // per-CPU
  symbols.push_back({"T_etext", kText + kTextBytes});  // one behind the last byte
  const ReadFile read = written(some_kernel(symbols).bytes(), 304);
  EXPECT_EQ(read.symbols.count("cpu_number"), 0u);
  EXPECT_EQ(read.symbols.count("_etext"), 0u);
}

TEST_F(KernelSymbolsTest, KernelWithoutKallsymsIsRefused) {
  expect_refused(without_kallsyms().bytes(), ErrorCode::kBadImage, "carries no symbols");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "symbols"));
}

TEST_F(KernelSymbolsTest, KernelThatIsNoElfFileIsRefused) {
  expect_refused({}, ErrorCode::kBadImage, "no ELF file");
  expect_refused(std::vector<uint8_t>(4096, 0x7f), ErrorCode::kBadImage, "no ELF file");
}

TEST_F(KernelSymbolsTest, TruncatedKernelIsRefused) {
  const auto bytes = some_kernel().bytes();
  for (size_t size = 0; size < bytes.size(); size += 61)
    expect_refused({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)}, ErrorCode::kBadImage, "");
}

TEST_F(KernelSymbolsTest, FileThatIsThereIsNotOverwritten) {
  const auto path = file({1, 2, 3});
  const auto count = write_kernel_symbols(some_kernel().bytes(), path);
  ASSERT_FALSE(count.has_value());
  EXPECT_EQ(count.error().code, ErrorCode::kOutput);
  EXPECT_EQ(std::filesystem::file_size(path), 3u);
}

TEST_F(KernelSymbolsTest, MissingFolderIsRefused) {
  const auto count = write_kernel_symbols(some_kernel().bytes(), folder_ / "nowhere" / "symbols");
  ASSERT_FALSE(count.has_value());
  EXPECT_EQ(count.error().code, ErrorCode::kOutput);
}

TEST_F(KernelSymbolsTest, VmlinuxWhereTheKernelRunsHasNoOffset) {
  EXPECT_EQ(offset_of_vmlinux(some_kernel().bytes(), file(vmlinux(kText).bytes())), 0u);
}

TEST_F(KernelSymbolsTest, MovedVmlinuxHasTheOffsetToWhereTheKernelRuns) {
  EXPECT_EQ(offset_of_vmlinux(some_kernel().bytes(), file(vmlinux(kText - 0x1000000).bytes())), 0x1000000u);
  EXPECT_EQ(offset_of_vmlinux(some_kernel().bytes(), file(vmlinux(kText + 0x200000).bytes())),
            -uint64_t{0x200000});
}

TEST_F(KernelSymbolsTest, KernelWithoutKallsymsRunsWhereItWasLinked) {
  EXPECT_EQ(offset_of_vmlinux(without_kallsyms().bytes(), file(vmlinux(kText + 0x200000).bytes())), 0u);
}

TEST_F(KernelSymbolsTest, MissingVmlinuxIsNotFound) {
  const auto offset = offset_of_vmlinux(some_kernel().bytes(), folder_ / "none");
  ASSERT_FALSE(offset.has_value());
  EXPECT_EQ(offset.error().code, ErrorCode::kNotFound);
}

TEST_F(KernelSymbolsTest, VmlinuxThatIsNoElfFileIsRefused) {
  expect_no_offset(some_kernel().bytes(), {}, ErrorCode::kBadImage, "vmlinux is no ELF file");
  expect_no_offset(some_kernel().bytes(), std::vector<uint8_t>(4096, 'x'), ErrorCode::kBadImage,
                   "vmlinux is no ELF file");
}

TEST_F(KernelSymbolsTest, VmlinuxOfAnotherBuildIsRefused) {
  expect_no_offset(some_kernel().bytes(), vmlinux(kText, "other kernel").bytes(), ErrorCode::kBadImage,
                   "build IDs differ");
}

TEST_F(KernelSymbolsTest, KernelsWithoutBuildIdsAreNotTakenForTheSame) {
  FakeKernelElf kernel, other;
  (void)kernel.add_memory(".text", SHF_EXECINSTR, kText, kTextBytes);
  other.add_symbol_table("_text", kText);
  expect_no_offset(kernel.bytes(), other.bytes(), ErrorCode::kBadImage, "build IDs differ");
}

TEST_F(KernelSymbolsTest, StrippedVmlinuxIsRefused) {
  expect_no_offset(some_kernel().bytes(), without_kallsyms().bytes(), ErrorCode::kBadImage,
                   "is it stripped?");
}

TEST_F(KernelSymbolsTest, TruncatedVmlinuxIsRefused) {
  const auto bytes = vmlinux(kText).bytes();
  for (size_t size = 0; size < bytes.size(); size += 61)
    expect_no_offset(some_kernel().bytes(), {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)},
                     ErrorCode::kBadImage, "");
}

}  // namespace
}  // namespace reprise::vmm
