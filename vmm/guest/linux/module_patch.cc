#include "vmm/guest/linux/module_patch.h"

#include <elf.h>

#include <algorithm>
#include <vector>

namespace reprise::vmm {
namespace {

template <typename T>
std::optional<T> read(const x86::LinearMemory& linear, Gva at) {
  T value{};
  if (linear.read(at, {reinterpret_cast<uint8_t*>(&value), sizeof value}) != sizeof value)
    return std::nullopt;
  return value;
}

// Writes back the pages of [at, at + code.size()) that changed.
bool write_changes(const x86::LinearMemory& linear, ViewMemory& memory, Gva at,
                   std::span<const uint8_t> before, std::span<const uint8_t> code) {
  size_t done = 0;
  while (done < code.size()) {
    const Gva from(at.raw + done);
    const size_t part = std::min<size_t>(code.size() - done, kPageSize - (from.raw & (kPageSize - 1)));
    const auto changed = code.subspan(done, part);
    if (!std::ranges::equal(changed, before.subspan(done, part))) {
      const auto gpa = linear.translate(from);
      if (!gpa.has_value() || !memory.write(*gpa, changed)) return false;
    }
    done += part;
  }
  return true;
}

}  // namespace

std::optional<CodePatches> patch_module(const x86::LinearMemory& linear, ViewMemory& memory, Gva header,
                                        Gva sections) {
  const auto elf = read<Elf64_Ehdr>(linear, header);
  if (!elf.has_value()) return std::nullopt;
  CodePatches done;
  uint64_t left = kMaxModuleCodeBytes;
  for (uint64_t i = 0; i < elf->e_shnum; ++i) {
    const auto section = read<Elf64_Shdr>(linear, sections + i * sizeof(Elf64_Shdr));
    if (!section.has_value()) return std::nullopt;
    if (section->sh_type != SHT_PROGBITS || (section->sh_flags & SHF_ALLOC) == 0 ||
        (section->sh_flags & SHF_EXECINSTR) == 0)
      continue;
    if (section->sh_size > left) return std::nullopt;
    left -= section->sh_size;
    std::vector<uint8_t> code(section->sh_size);
    if (linear.read(Gva(section->sh_addr), code) != code.size()) return std::nullopt;
    const std::vector<uint8_t> before = code;
    const CodePatches more = patch_code(code);
    if (!write_changes(linear, memory, Gva(section->sh_addr), before, code)) return std::nullopt;
    done.rdtsc += more.rdtsc;
    done.rdtscp += more.rdtscp;
    done.pause += more.pause;
  }
  return done;
}

}  // namespace reprise::vmm
