#include "vmm/guest/elf_file.h"

#include <algorithm>
#include <bit>

namespace reprise::vmm {
namespace {

static_assert(std::endian::native == std::endian::little, "guest structures are copied as they are");

Result<Segment> read_segment(Bytes elf, const Elf64_Phdr& header) {
  const auto data = slice(elf, header.p_offset, header.p_filesz);
  if (!data)
    return bad_image("the guest image is truncated: a segment needs {} bytes at offset {}, the file has {}",
                     header.p_filesz, header.p_offset, elf.size());
  if (header.p_filesz > header.p_memsz)
    return bad_image("the segment at {:#x} has {} bytes in the file and only {} in memory", header.p_paddr,
                     header.p_filesz, header.p_memsz);
  if (header.p_paddr > kAddressLimit || header.p_memsz > kAddressLimit)
    return bad_image("the segment at {:#x} with {:#x} bytes lies outside any machine's memory",
                     header.p_paddr, header.p_memsz);
  return Segment{Gpa(header.p_paddr), header.p_memsz, *data};
}

}  // namespace

// [offset, offset + size) of `bytes`, if it is all there.
std::optional<Bytes> slice(Bytes bytes, uint64_t offset, uint64_t size) {
  if (offset > bytes.size() || size > bytes.size() - offset) return std::nullopt;
  return bytes.subspan(offset, size);
}

Result<Elf64_Ehdr> read_elf_header(Bytes elf) {
  const auto magic = slice(elf, 0, SELFMAG);
  if (!magic || std::memcmp(magic->data(), ELFMAG, SELFMAG) != 0)
    return bad_image("the guest image is not an ELF file: use an uncompressed kernel (vmlinux, not bzImage)");
  const auto header = get<Elf64_Ehdr>(elf, 0);
  if (!header) return bad_image("the guest image ends within its ELF header, after {} bytes", elf.size());
  if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
      header->e_machine != EM_X86_64)
    return bad_image("the guest image is for another processor (ELF class {}, machine {}): x86-64 is needed",
                     header->e_ident[EI_CLASS], header->e_machine);
  if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
    return bad_image("the guest image is not a linked program (ELF type {}): link it first", header->e_type);
  if (header->e_phnum == 0)
    return bad_image("the guest image has no program headers: nothing says what to load");
  if (header->e_phentsize != sizeof(Elf64_Phdr))
    return bad_image("the guest image has program headers of {} bytes: {} are needed", header->e_phentsize,
                     sizeof(Elf64_Phdr));
  return *header;
}

Result<std::vector<Elf64_Phdr>> read_program_headers(Bytes elf, const Elf64_Ehdr& header) {
  std::vector<Elf64_Phdr> programs;
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    // Checked first, so that the sum cannot wrap round.
    const auto table = slice(elf, header.e_phoff, (i + 1) * sizeof(Elf64_Phdr));
    if (!table)
      return bad_image("the guest image is truncated: {} program headers at offset {}, the file has {} bytes",
                       header.e_phnum, header.e_phoff, elf.size());
    programs.push_back(*get<Elf64_Phdr>(*table, i * sizeof(Elf64_Phdr)));
  }
  return programs;
}

// Sorted, so that two that overlap become neighbours. Without overlap, loading is bounded by the size of RAM.
Result<std::vector<Segment>> read_segments(Bytes elf, std::span<const Elf64_Phdr> programs, Gpa area_begin,
                                           Gpa area_end) {
  std::vector<Segment> segments;
  for (const auto& program : programs) {
    if (program.p_type != PT_LOAD || program.p_memsz == 0) continue;
    TRY_ASSIGN(const Segment segment, read_segment(elf, program));
    segments.push_back(segment);
  }
  if (segments.empty()) return bad_image("the guest image has no PT_LOAD segment: there is nothing to load");
  std::ranges::sort(segments, {}, &Segment::address);
  uint64_t end = 0;
  for (const Segment& segment : segments) {
    const uint64_t begin = segment.address.raw;
    if (begin < end) return bad_image("two segments of the guest image overlap at {:#x}", begin);
    end = begin + segment.memory_bytes;
    if (begin < area_end.raw && end > area_begin.raw)
      return bad_image("the segment at {:#x} overlaps {:#x} to {:#x}, where the boot information goes", begin,
                       area_begin.raw, area_end.raw);
  }
  return segments;
}

void write_segments(std::span<const Segment> segments, std::span<uint8_t> ram) {
  for (const Segment& segment : segments) {
    const auto target = ram.subspan(segment.address.raw, segment.memory_bytes);
    std::ranges::copy(segment.data, target.begin());
    std::ranges::fill(target.subspan(segment.data.size()), uint8_t{0});
  }
}

}  // namespace reprise::vmm
