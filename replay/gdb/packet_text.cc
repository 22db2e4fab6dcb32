#include "replay/gdb/packet_text.h"

#include <fmt/format.h>

namespace reprise::replay::gdb {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";
constexpr size_t kNumberDigits = 16;  // of 64 bits
constexpr std::string_view kFraming = "#$*}";

std::optional<uint8_t> digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<uint8_t>(c - 'A' + 10);
  return std::nullopt;
}

}  // namespace

std::string to_hex(std::span<const uint8_t> bytes) {
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

std::string to_hex(std::string_view text) {
  return to_hex(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

std::optional<std::vector<uint8_t>> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  std::vector<uint8_t> bytes;
  bytes.reserve(hex.size() / 2);
  for (size_t at = 0; at < hex.size(); at += 2) {
    const auto high = digit(hex[at]);
    const auto low = digit(hex[at + 1]);
    if (!high || !low) return std::nullopt;
    bytes.push_back(static_cast<uint8_t>(*high << 4 | *low));
  }
  return bytes;
}

std::string to_hex_number(uint64_t number) {
  return fmt::format("{:x}", number);
}

std::string escape(std::string_view data) {
  std::string escaped;
  escaped.reserve(data.size());
  for (const char c : data) {
    if (kFraming.find(c) != kFraming.npos) {
      escaped += '}';
      escaped += static_cast<char>(c ^ 0x20);
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string error_text(std::string_view sentence) {
  std::string text = "E.";
  for (const char c : sentence) text += c < ' ' || c > '~' || kFraming.find(c) != kFraming.npos ? ' ' : c;
  return text;
}

bool PacketText::take(std::string_view expected) {
  if (!rest_.starts_with(expected)) return false;
  rest_.remove_prefix(expected.size());
  return true;
}

std::optional<uint64_t> PacketText::number() {
  size_t digits = 0;
  uint64_t number = 0;
  while (digits < rest_.size()) {
    const auto value = digit(rest_[digits]);
    if (!value) break;
    if (++digits > kNumberDigits) return std::nullopt;
    number = number << 4 | *value;
  }
  if (digits == 0) return std::nullopt;
  rest_.remove_prefix(digits);
  return number;
}

std::string_view PacketText::until(char separator) {
  const size_t at = rest_.find(separator);
  const std::string_view taken = rest_.substr(0, at);
  rest_.remove_prefix(at == rest_.npos ? rest_.size() : at + 1);
  return taken;
}

}  // namespace reprise::replay::gdb
