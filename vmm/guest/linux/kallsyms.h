// The symbols that a Linux kernel carries in its read-only data for its own use: a kernel from which all
// others were stripped still has these. Any bytes are safe.
//
// Source: Linux, scripts/kallsyms.c (write_src), kernel/kallsyms.c; seen in Debian's 6.1. The tables follow
// one another, each at a multiple of 8, and nothing says where: up to 6.3 offsets, base, number, names,
// markers, later versions number, names, markers, and the former two at the end.
//   names   for each symbol its length (one byte, or two from 128 on, the lower seven bits first), then so
//   many tokens; what they stand
//           for, one behind the other, is the symbol's type (a letter) and its name
//   markers where every 256th name begins, from the first name on; 32 bits each
//   tokens  256 strings, each ending in a zero; then where each begins, 16 bits each. Those of characters
//   that names use are these
//           characters, so the ten digits stand in a row: that is how the tables are found
//   offsets 32 bits each; negative: the address is base - 1 - offset; else it is an absolute one (of per-CPU
//   variables). Where none is
//           negative, the address is base + offset
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/units.h"
#include "vmm/guest/elf_file.h"

namespace reprise::vmm {

// Where the kernel's half of the addresses begins. Source: Documentation/arch/x86/x86_64/mm.rst
inline constexpr uint64_t kKernelHalf = 0xffff800000000000;

// Threads: immutable.
class Kallsyms {
 public:
  // Looks for the tables in `data` (a section of the kernel, from an address that is a multiple of 8 on),
  // which outlives this. None: they are not there, or not as described. Cost: reads all of `data` at most
  // once for each thing that looks like them; milliseconds.
  static std::optional<Kallsyms> find(Bytes data);

  [[nodiscard]] uint32_t count() const { return count_; }
  // Calls `visit` with each symbol's type (as nm(1) says it), name, and address, until that returns false.
  // The name lives as long as the call.
  void for_each(const std::function<bool(char type, std::string_view name, Gva address)>& visit) const;
  // Of the first symbol of that name, if there is one. Cost: reads all names before it.
  [[nodiscard]] std::optional<Gva> address_of(std::string_view name) const;

 private:
  static constexpr size_t kTokens = 256;
  using Tokens = std::array<std::string_view, kTokens>;

  explicit Kallsyms(Bytes data) : data_(data) {}
  bool find_tokens(size_t digits);
  bool find_names();
  bool find_offsets();
  [[nodiscard]] std::optional<size_t> end_of_names(size_t names, uint32_t count) const;
  [[nodiscard]] bool has_markers(size_t names, uint32_t count, size_t markers) const;
  [[nodiscard]] std::optional<Bytes> name_at(size_t& at) const;
  [[nodiscard]] Gva address_of_symbol(uint32_t number) const;
  [[nodiscard]] std::optional<uint32_t> word_at(size_t at) const { return get<uint32_t>(data_, at); }

  Bytes data_;
  Tokens tokens_;
  size_t first_token_ = 0;  // where the tables begin in data_
  size_t after_tokens_ = 0;
  size_t names_ = 0;
  uint32_t count_ = 0;
  size_t offsets_ = 0;
  uint64_t base_ = 0;
  bool has_absolute_ = false;
};

}  // namespace reprise::vmm
