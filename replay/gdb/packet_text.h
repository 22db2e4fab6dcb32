// The text in GDB's packets: hexadecimal numbers and bytes.
// Source: "Debugging with GDB" (13), appendix E, GDB Remote Serial Protocol; so for all of this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reprise::replay::gdb {

[[nodiscard]] std::string to_hex(std::span<const uint8_t> bytes);
[[nodiscard]] std::string to_hex(std::string_view text);
// Nothing if `hex` is not pairs of digits.
[[nodiscard]] std::optional<std::vector<uint8_t>> from_hex(std::string_view hex);
// As a packet's number: without leading zeros.
[[nodiscard]] std::string to_hex_number(uint64_t number);

// Binary data in an answer: what frames packets is escaped (E.1, "Overview").
[[nodiscard]] std::string escape(std::string_view data);
// "E.SENTENCE", which GDB shows where it shows errors at all. What frames packets becomes a blank.
[[nodiscard]] std::string error_text(std::string_view sentence);

// Reads a packet from left to right. The text outlives this.
class PacketText {
 public:
  explicit PacketText(std::string_view text) : rest_(text) {}

  // Takes `expected` if it is next.
  bool take(std::string_view expected);
  // Takes one to sixteen hexadecimal digits; nothing, and takes nothing, if there are none or more.
  std::optional<uint64_t> number();
  // Takes all before the next `separator`, and it too; without one, the whole rest.
  std::string_view until(char separator);
  [[nodiscard]] std::string_view rest() const { return rest_; }
  [[nodiscard]] bool done() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace reprise::replay::gdb
