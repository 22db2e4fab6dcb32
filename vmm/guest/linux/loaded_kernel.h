// A Linux kernel's ELF file, and what of it is in guest memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "vmm/guest/elf_file.h"
#include "vmm/guest/linux/kallsyms.h"

namespace reprise::vmm {

// A file's sections and the place in memory of what is in them.
class LoadedKernel {
 public:
  static Result<LoadedKernel> read(Bytes elf, std::span<uint8_t> ram) {
    LoadedKernel kernel(elf, ram);
    TRY_ASSIGN(const Elf64_Ehdr header, read_elf_header(elf));
    TRY_ASSIGN(kernel.programs_, read_program_headers(elf, header));
    if (header.e_shnum == 0 || header.e_shentsize != sizeof(Elf64_Shdr))
      return bad_image("the kernel has no section headers: nothing says where its instructions are");
    for (uint64_t i = 0; i < header.e_shnum; ++i) {
      const auto table = slice(elf, header.e_shoff, (i + 1) * sizeof(Elf64_Shdr));
      if (!table) return bad_image("the kernel is truncated: its section headers are missing");
      const auto section = *get<Elf64_Shdr>(*table, i * sizeof(Elf64_Shdr));
      if (section.sh_type == SHT_PROGBITS && (section.sh_flags & SHF_ALLOC) != 0)
        kernel.sections_.push_back(section);
    }
    return kernel;
  }

  // Calls `visit` with each section, as it lies in memory.
  template <typename Visit>
  void for_each(bool executable, Visit&& visit) {
    for (const auto& section : sections_) {
      if (((section.sh_flags & SHF_EXECINSTR) != 0) != executable) continue;
      const auto bytes = at_offset(section.sh_offset, section.sh_size);
      if (!bytes.empty()) visit(section, bytes);
    }
  }

  // What the kernel knows as [address, address + bytes); empty if that was not loaded.
  std::span<uint8_t> at_address(uint64_t address, uint64_t bytes) {
    for (const auto& program : programs_) {
      if (program.p_type != PT_LOAD || address < program.p_vaddr ||
          address - program.p_vaddr >= program.p_filesz)
        continue;
      return at_offset(program.p_offset + (address - program.p_vaddr), bytes);
    }
    return {};
  }

  // Those that it carries for its own use.
  std::optional<Kallsyms> symbols() {
    std::optional<Kallsyms> found;
    for_each(false, [&](const Elf64_Shdr&, std::span<uint8_t> data) {
      if (!found.has_value()) found = Kallsyms::find(data);
    });
    return found;
  }
  // Where such bytes are in guest-physical memory.
  [[nodiscard]] Gpa physical(const uint8_t* byte) const {
    return Gpa(static_cast<uint64_t>(byte - ram_.data()));
  }

 private:
  LoadedKernel(Bytes elf, std::span<uint8_t> ram) : elf_(elf), ram_(ram) {}

  std::span<uint8_t> at_offset(uint64_t offset, uint64_t bytes) {
    for (const auto& program : programs_) {
      if (program.p_type != PT_LOAD || offset < program.p_offset ||
          offset - program.p_offset >= program.p_filesz)
        continue;
      const uint64_t into = offset - program.p_offset;
      const uint64_t length = std::min(bytes, program.p_filesz - into);
      if (program.p_paddr > ram_.size() || into + length > ram_.size() - program.p_paddr) return {};
      return ram_.subspan(program.p_paddr + into, length);
    }
    return {};
  }

  Bytes elf_;
  std::span<uint8_t> ram_;
  std::vector<Elf64_Phdr> programs_;
  std::vector<Elf64_Shdr> sections_;
};

}  // namespace reprise::vmm
