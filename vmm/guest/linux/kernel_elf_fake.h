// Test support: Linux kernels of a few sections, written byte by byte.
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/guest/elf_image_fake.h"
#include "vmm/guest/linux/kallsyms_fake.h"

namespace reprise::vmm {

// An ELF64 file of sections. Add them, then take the bytes.
class FakeKernelElf {
 public:
  FakeKernelElf() { sections_.push_back({}); }

  // Its number in the file.
  uint32_t add(std::string_view name, Elf64_Shdr header, std::vector<uint8_t> content) {
    header.sh_name = static_cast<uint32_t>(names_.size());
    names_ += std::string(name) + '\0';
    if (header.sh_size == 0) header.sh_size = content.size();
    if (header.sh_addralign == 0) header.sh_addralign = 8;
    sections_.push_back({header, std::move(content)});
    return static_cast<uint32_t>(sections_.size() - 1);
  }

  // A section of the kernel's memory. `bytes`: its size; 0: that of `content`.
  uint32_t add_memory(std::string_view name, uint64_t flags, uint64_t address, uint64_t bytes,
                      std::vector<uint8_t> content = {}) {
    Elf64_Shdr header{};
    header.sh_type = content.empty() ? SHT_NOBITS : SHT_PROGBITS;
    header.sh_flags = SHF_ALLOC | flags;
    header.sh_addr = address;
    header.sh_size = bytes;
    return add(name, header, std::move(content));
  }

  void add_build_id(std::string_view id) {
    Elf64_Shdr header{};
    header.sh_type = SHT_NOTE;
    header.sh_addralign = 4;
    // Not the first note: kernels have others in front of it.
    std::vector<uint8_t> notes = fake_note("Linux", 1, "\6\1\0", 4);
    const auto note = fake_note("GNU", NT_GNU_BUILD_ID, id.data(), static_cast<uint32_t>(id.size()));
    notes.insert(notes.end(), note.begin(), note.end());
    (void)add(".notes", header, std::move(notes));
  }

  // The table that a kernel with its debugging information has, of one symbol.
  void add_symbol_table(std::string_view name, uint64_t address) {
    Elf64_Shdr header{};
    header.sh_type = SHT_STRTAB;
    const std::string text = '\0' + std::string(name) + '\0';
    header.sh_link = add(".strtab", header, {text.begin(), text.end()});
    header.sh_type = SHT_SYMTAB;
    header.sh_entsize = sizeof(Elf64_Sym);
    Elf64_Sym symbols[2] = {};
    symbols[1].st_name = 1;
    symbols[1].st_value = address;
    symbols[1].st_shndx = SHN_ABS;
    std::vector<uint8_t> content(sizeof symbols);
    std::memcpy(content.data(), symbols, sizeof symbols);
    (void)add(".symtab", header, std::move(content));
  }

  [[nodiscard]] std::vector<uint8_t> bytes() const {
    FakeKernelElf all = *this;
    Elf64_Shdr names{};
    names.sh_type = SHT_STRTAB;
    const uint32_t number = all.add(".shstrtab", names, {});
    all.sections_[number].content.assign(all.names_.begin(), all.names_.end());
    all.sections_[number].header.sh_size = all.names_.size();
    return all.written(number);
  }

 private:
  struct Section {
    Elf64_Shdr header = {};
    std::vector<uint8_t> content;
  };

  // The table of sections is last, as linkers put it.
  [[nodiscard]] std::vector<uint8_t> written(uint32_t names) const {
    std::vector<uint8_t> file(sizeof(Elf64_Ehdr));
    std::vector<Elf64_Shdr> table;
    for (const Section& section : sections_) {
      file.resize((file.size() + 7) / 8 * 8);
      table.push_back(section.header);
      table.back().sh_offset = file.size();
      file.insert(file.end(), section.content.begin(), section.content.end());
    }
    file.resize((file.size() + 7) / 8 * 8);
    Elf64_Ehdr header = FakeElfImage().header;
    header.e_ehsize = sizeof header;
    header.e_phnum = header.e_phentsize = 0;
    header.e_phoff = 0;
    header.e_shoff = file.size();
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = static_cast<uint16_t>(table.size());
    header.e_shstrndx = static_cast<uint16_t>(names);
    std::memcpy(file.data(), &header, sizeof header);
    const auto* begin = reinterpret_cast<const uint8_t*>(table.data());
    file.insert(file.end(), begin, begin + table.size() * sizeof(Elf64_Shdr));
    return file;
  }

  std::string names_ = std::string(1, '\0');
  std::vector<Section> sections_;
};

}  // namespace reprise::vmm
