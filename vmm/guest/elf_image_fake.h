// Small ELF files for tests of the boot loader, written byte by byte.
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace reprise::vmm {

// One note: header, name with its zero byte, description, each padded to four bytes.
inline std::vector<uint8_t> fake_note(std::string_view name, uint32_t type, const void* data, uint32_t size) {
  const Elf64_Nhdr header = {static_cast<uint32_t>(name.size() + 1), size, type};
  std::vector<uint8_t> bytes(sizeof(header));
  std::memcpy(bytes.data(), &header, sizeof(header));
  bytes.insert(bytes.end(), name.begin(), name.end());
  bytes.push_back(0);
  bytes.resize((bytes.size() + 3) / 4 * 4);
  const auto* begin = static_cast<const uint8_t*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
  bytes.resize((bytes.size() + 3) / 4 * 4);
  return bytes;
}

// The description of a Reprise note, in its file layout.
struct FakeRepriseNote {
  uint32_t version = 1;
  uint32_t flags = 1;
  uint64_t clock = 0x300000;
  uint64_t trap = 0xd0000000;
  uint64_t private_begin = 0x300000;
  uint64_t private_end = 0x310000;
};

// An image with one segment of code and one of data with a bss, a PVH entry and a Reprise note. Change the
// fields, then take the bytes.
struct FakeElfImage {
  Elf64_Ehdr header = {};
  std::vector<Elf64_Phdr> programs;
  std::vector<uint8_t> code = {0xf4, 0xeb, 0xfd};  // 1: hlt; jmp 1b
  std::vector<uint8_t> data = {1, 2, 3, 4, 5};
  uint64_t entry = 0x100000;
  uint32_t entry_bytes = 8;
  FakeRepriseNote reprise;
  uint32_t reprise_bytes = sizeof(FakeRepriseNote);
  bool with_entry = true;
  bool with_reprise = true;
  std::vector<uint8_t> more_notes;

  FakeElfImage() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_phoff = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 3;
    programs = {{PT_LOAD, PF_R | PF_X, kCodeOffset, 0, 0x100000, 0, 0x1000, 0x1000},
                {PT_LOAD, PF_R | PF_W, kDataOffset, 0, 0x200000, 0, 0x10000, 0x1000},
                {PT_NOTE, PF_R, kNoteOffset, 0, 0, 0, 0, 4}};
    programs[0].p_filesz = code.size();
    programs[1].p_filesz = data.size();
  }

  [[nodiscard]] std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> notes;
    const auto add = [&notes](const std::vector<uint8_t>& note) {
      notes.insert(notes.end(), note.begin(), note.end());
    };
    add(fake_note("GNU", 3, "build-id", 8));
    if (with_entry) add(fake_note("Xen", 18, &entry, entry_bytes));
    if (with_reprise) add(fake_note("Reprise", 1, &reprise, reprise_bytes));
    add(more_notes);
    std::vector<Elf64_Phdr> table = programs;
    for (Elf64_Phdr& program : table)
      if (program.p_type == PT_NOTE && program.p_filesz == 0)
        program.p_filesz = program.p_memsz = notes.size();
    std::vector<uint8_t> file(kNoteOffset);
    std::memcpy(&file[0], &header, sizeof(header));
    std::memcpy(&file[sizeof(header)], table.data(), table.size() * sizeof(Elf64_Phdr));
    std::memcpy(&file[kCodeOffset], code.data(), code.size());
    std::memcpy(&file[kDataOffset], data.data(), data.size());
    file.insert(file.end(), notes.begin(), notes.end());
    return file;
  }

  static constexpr uint64_t kCodeOffset = 0x180;  // after the header and room for five program headers
  static constexpr uint64_t kDataOffset = 0x190;
  static constexpr uint64_t kNoteOffset = 0x198;
};

}  // namespace reprise::vmm
