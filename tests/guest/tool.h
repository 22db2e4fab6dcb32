// What the programs of this folder that go to and fro in recordings have in common.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

#include "replay/gdb/debug_target.h"

namespace reprise {

// Decimal, and nothing else.
inline std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

// Waits for everything, and wants every stop.
class Patience final : public replay::RunListener {
 public:
  bool interrupted() override { return false; }
  bool wants(const replay::StopEvent& /*stop*/) override { return true; }
};

}  // namespace reprise
