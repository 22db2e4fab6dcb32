#include "base/printable.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

namespace reprise {
namespace {

struct CodePoint {
  uint32_t value = 0;
  size_t bytes = 0;
};

// The first code point. Nothing: the bytes are no UTF-8. Source: RFC 3629, section 4.
std::optional<CodePoint> first_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return CodePoint{lead, 1};
  const size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return std::nullopt;
  uint32_t value = lead & (0xffu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return std::nullopt;
    value = value << 6 | (byte(i) & 0x3fu);
  }
  constexpr std::array<uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kLeast[bytes] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return std::nullopt;
  return CodePoint{value, bytes};
}

bool is_control(uint32_t value) {
  return value < 0x20 || (value >= 0x7f && value < 0xa0);
}

// Direction marks, overrides and isolates (they reorder what is shown), zero-width characters, line
// separators, tags. Source: Unicode 15, general category Cf, Zl and Zp.
bool is_invisible(uint32_t value) {
  struct Range {
    uint32_t first, last;
  };
  constexpr std::array<Range, 10> kRanges = {{{0xad, 0xad},
                                              {0x600, 0x605},
                                              {0x61c, 0x61c},
                                              {0x180e, 0x180e},
                                              {0x200b, 0x200f},
                                              {0x2028, 0x202e},
                                              {0x2060, 0x206f},
                                              {0xfeff, 0xfeff},
                                              {0xfff9, 0xfffb},
                                              {0xe0000, 0xe007f}}};
  return std::ranges::any_of(kRanges,
                             [&](const Range& range) { return value >= range.first && value <= range.last; });
}

std::string printable(std::string_view text, bool keep_newlines) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto code = first_code_point(text);
    const std::string_view part = text.substr(0, code.has_value() ? code->bytes : 1);
    text.remove_prefix(part.size());
    if (part == "\n")
      out += keep_newlines ? "\n" : "\\n";
    else if (part == "\t")
      out += "\\t";
    else if (!code.has_value() || is_control(code->value))
      for (const char byte : part) out += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
    else if (is_invisible(code->value))
      out += fmt::format("\\u{{{:04x}}}", code->value);
    else
      out += part;
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) {
  return printable(text, false);
}

std::string printable_lines(std::string_view text) {
  return printable(text, true);
}

}  // namespace reprise
