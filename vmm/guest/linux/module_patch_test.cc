#include "vmm/guest/linux/module_patch.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "vmm/kvm/cpu_state.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kRam = 1 << 20;
constexpr Gva kHeader{0x2000};
constexpr Gva kSections{0x3000};
using Code = std::vector<uint8_t>;

// A guest without paging, so that addresses are what they say, in which a module was laid out.
class ModulePatch : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ram = GuestMemory::create({.bytes = kRam}, false);
    ASSERT_TRUE(ram);
    ram_ = std::move(*ram);
    auto view = ViewMemory::create(*ram_, {}, ViewKind::kUnprotected, 0);
    ASSERT_TRUE(view);
    view_ = std::move(*view);
  }

  void lay_out(uint64_t flags, uint64_t address, const Code& code) {
    if (address < kRam) std::ranges::copy(code, ram_->writable(Gpa(address), code.size()).begin());
    add_section({.sh_type = SHT_PROGBITS, .sh_flags = flags, .sh_addr = address, .sh_size = code.size()});
  }
  void add_section(const Elf64_Shdr& section) {
    std::memcpy(ram_->writable(Gpa(kSections.raw) + sizeof section * header_.e_shnum, sizeof section).data(),
                &section, sizeof section);
    ++header_.e_shnum;
    std::memcpy(ram_->writable(Gpa(kHeader.raw), sizeof header_).data(), &header_, sizeof header_);
  }
  [[nodiscard]] std::optional<CodePatches> patch() {
    return patch_module(x86::LinearMemory(paging_of(kvm_sregs{}), *view_), *view_, kHeader, kSections);
  }
  [[nodiscard]] Code at(uint64_t address, size_t bytes) const {
    const auto part = ram_->ram().subspan(address, bytes);
    return {part.begin(), part.end()};
  }

  Elf64_Ehdr header_{};
  std::unique_ptr<GuestMemory> ram_;
  std::unique_ptr<ViewMemory> view_;
};

constexpr uint64_t kExecutable = SHF_ALLOC | SHF_EXECINSTR;

TEST_F(ModulePatch, CodeIsPatchedInEveryExecutableSection) {
  lay_out(kExecutable, 0x10000, {0x90, 0x0f, 0x31, 0xc3});
  lay_out(kExecutable, 0x20000, {0xf3, 0x90, 0x0f, 0x01, 0xf9});
  EXPECT_EQ(patch(), (CodePatches{.rdtsc = 1, .rdtscp = 1, .pause = 1}));
  EXPECT_EQ(at(0x10000, 4), (Code{0x90, 0xe5, kRdtscPort, 0xc3}));
  EXPECT_EQ(at(0x20000, 5), (Code{0xe6, kPausePort, 0xe5, kRdtscpPort, 0x90}));
}

TEST_F(ModulePatch, InstructionAcrossPagesIsPatched) {
  lay_out(kExecutable, 0x10fff, {0x0f, 0x31, 0xc3});
  EXPECT_EQ(patch(), (CodePatches{.rdtsc = 1}));
  EXPECT_EQ(at(0x10fff, 3), (Code{0xe5, kRdtscPort, 0xc3}));
}

TEST_F(ModulePatch, DataAndWhatIsNotLoadedStay) {
  const Code rdtsc = {0x0f, 0x31};
  lay_out(SHF_ALLOC, 0x10000, rdtsc);
  lay_out(SHF_EXECINSTR, 0x20000, rdtsc);
  EXPECT_EQ(patch(), CodePatches{});
  EXPECT_EQ(at(0x10000, 2), rdtsc);
  EXPECT_EQ(at(0x20000, 2), rdtsc);
}

TEST_F(ModulePatch, CodeOutsideMemoryIsRefused) {
  lay_out(kExecutable, kRam - 1, {0x0f});
  add_section({.sh_type = SHT_PROGBITS, .sh_flags = kExecutable, .sh_addr = kRam - 1, .sh_size = 2});
  EXPECT_EQ(patch(), std::nullopt);
}

TEST_F(ModulePatch, CodeThatWrapsAroundIsRefused) {
  add_section({.sh_type = SHT_PROGBITS, .sh_flags = kExecutable, .sh_addr = ~0ull, .sh_size = 0x1000});
  EXPECT_EQ(patch(), std::nullopt);
}

TEST_F(ModulePatch, MoreCodeThanAModuleMayHaveIsRefused) {
  for (int i = 0; i < 2; ++i)
    add_section({.sh_type = SHT_PROGBITS,
                 .sh_flags = kExecutable,
                 .sh_addr = 0x10000,
                 .sh_size = i == 0 ? 1 : kMaxModuleCodeBytes});
  EXPECT_EQ(patch(), std::nullopt);
}

TEST_F(ModulePatch, HeadersOutsideMemoryAreRefused) {
  EXPECT_EQ(patch_module(x86::LinearMemory(paging_of(kvm_sregs{}), *view_), *view_, Gva(kRam), kSections),
            std::nullopt);
  header_.e_shnum = 1;
  std::memcpy(ram_->writable(Gpa(kHeader.raw), sizeof header_).data(), &header_, sizeof header_);
  EXPECT_EQ(patch_module(x86::LinearMemory(paging_of(kvm_sregs{}), *view_), *view_, kHeader, Gva(kRam - 8)),
            std::nullopt);
}

}  // namespace
}  // namespace reprise::vmm
