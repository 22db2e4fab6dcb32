// The parts of an ELF64 file that say what goes where in a guest's memory. Any bytes are safe.
// Source: System V ABI, "ELF-64 Object File Format".
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace reprise::vmm {

using Bytes = std::span<const uint8_t>;

inline constexpr uint64_t kAddressLimit =
    1ull << 36;  // what every x86-64 processor can address (SDM vol. 1, 3.3.1)

template <typename... Args>
tl::unexpected<Error> bad_image(fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kBadImage, format, std::forward<Args>(args)...);
}

// [offset, offset + size) of `bytes`, if it is all there.
std::optional<Bytes> slice(Bytes bytes, uint64_t offset, uint64_t size);

// The T at `offset`; a copy, for nothing in a file is aligned.
template <typename T>
std::optional<T> get(Bytes bytes, uint64_t offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto part = slice(bytes, offset, sizeof(T));
  if (!part) return std::nullopt;
  T value;
  std::memcpy(&value, part->data(), sizeof(T));
  return value;
}

// One PT_LOAD segment: `data` goes to `address`, zeros fill up to `memory_bytes`.
struct Segment {
  Gpa address;
  uint64_t memory_bytes = 0;      // > 0, and at least data.size()
  std::span<const uint8_t> data;  // views the ELF bytes
};

// The header of a linked x86-64 program, and its program headers. Errors: kBadImage, one sentence.
Result<Elf64_Ehdr> read_elf_header(Bytes elf);
Result<std::vector<Elf64_Phdr>> read_program_headers(Bytes elf, const Elf64_Ehdr& header);

// The PT_LOAD segments that have something in them, by physical address, without overlap; never empty.
// [begin, end) is where boot information goes: no segment may touch it. Errors: kBadImage.
Result<std::vector<Segment>> read_segments(Bytes elf, std::span<const Elf64_Phdr> programs, Gpa begin,
                                           Gpa end);

// Copies the segments. Requires: they lie inside `ram`.
void write_segments(std::span<const Segment> segments, std::span<uint8_t> ram);

}  // namespace reprise::vmm
