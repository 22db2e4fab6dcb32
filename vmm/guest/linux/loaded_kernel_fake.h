// Test support: a Linux kernel of a few sections in one segment, and what of it is in memory.
#pragma once

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace reprise::vmm {

// A kernel with one segment, its sections one after the other at multiples of 16. Change the fields, then
// patch().
struct FakeKernel {
  using Code = std::vector<uint8_t>;
  static constexpr uint64_t kFileOffset = 0x200;  // of the segment
  static constexpr uint64_t kAddress = 0x1000;    // where it is loaded
  static constexpr uint64_t kVirtual = 0xffffffff81000000;
  static constexpr uint64_t kExecutable = SHF_ALLOC | SHF_EXECINSTR;

  struct Section {
    Code bytes;
    uint64_t flags = kExecutable;
    uint32_t type = SHT_PROGBITS;
  };

  std::vector<Section> sections;
  Elf64_Ehdr header = {};
  std::vector<Elf64_Phdr> programs = {
      {PT_LOAD, PF_R | PF_X, kFileOffset, kVirtual, kAddress, 0, 0, 0x1000}};  // sizes: by elf()

  FakeKernel(std::initializer_list<Section> with) : sections(with) {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = static_cast<uint16_t>(sections.size());
  }
  explicit FakeKernel(const Code& code) : FakeKernel({Section{code}}) {}

  // From the start of the segment.
  [[nodiscard]] uint64_t offset_of(size_t section) const {
    uint64_t offset = 0;
    for (size_t i = 0; i < section; ++i) offset = (offset + sections[i].bytes.size() + 15) & ~15ull;
    return offset;
  }
  // What goes into memory.
  [[nodiscard]] Code segment() const {
    Code bytes;
    for (size_t i = 0; i < sections.size(); ++i) {
      bytes.resize(offset_of(i));
      bytes.insert(bytes.end(), sections[i].bytes.begin(), sections[i].bytes.end());
    }
    return bytes;
  }
  [[nodiscard]] Code elf() const {
    const Code loaded = segment();
    Code file(kFileOffset);
    file.insert(file.end(), loaded.begin(), loaded.end());
    Elf64_Ehdr head = header;
    head.e_shoff = file.size();
    head.e_phnum = static_cast<uint16_t>(programs.size());
    std::memcpy(file.data(), &head, sizeof(head));
    for (size_t i = 0; i < programs.size(); ++i) {
      Elf64_Phdr program = programs[i];
      if (program.p_filesz == 0) program.p_filesz = program.p_memsz = loaded.size();
      std::memcpy(&file[sizeof(head) + i * sizeof(program)], &program, sizeof(program));
    }
    for (size_t i = 0; i < sections.size(); ++i) {
      const Elf64_Shdr section = {.sh_type = sections[i].type,
                                  .sh_flags = sections[i].flags,
                                  .sh_addr = kVirtual + offset_of(i),
                                  .sh_offset = kFileOffset + offset_of(i),
                                  .sh_size = sections[i].bytes.size()};
      const auto* begin = reinterpret_cast<const uint8_t*>(&section);
      file.insert(file.end(), begin, begin + sizeof(section));
    }
    return file;
  }
};

}  // namespace reprise::vmm
