// A ByteStream whose other side is a test.
#pragma once

#include <cstring>
#include <deque>
#include <string>

#include "replay/gdb/byte_stream.h"

namespace reprise::replay::gdb {

// Threads: confined to one.
class FakeByteStream final : public ByteStream {
 public:
  // What the other side sends, in the pieces in which it arrives; after the last it is gone.
  std::deque<std::string> arriving;
  // What has arrived when the stub looks without waiting.
  std::deque<std::string> early;
  // What the stub sent.
  std::string sent;
  // Fails from now on.
  bool broken = false;

  Result<std::optional<size_t>> read(std::span<uint8_t> out, bool wait) override {
    if (broken) return fail(ErrorCode::kHost, "broken");
    std::deque<std::string>& from = wait ? arriving : early;
    if (from.empty()) return wait ? std::nullopt : std::optional<size_t>(0);
    const size_t bytes = std::min(out.size(), from.front().size());
    std::memcpy(out.data(), from.front().data(), bytes);
    from.front().erase(0, bytes);
    if (from.front().empty()) from.pop_front();
    return bytes;
  }

  Status write(std::span<const uint8_t> bytes) override {
    if (broken) return fail(ErrorCode::kHost, "broken");
    sent.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
};

// As GDB sends it; `text` with its escapes.
inline std::string frame(std::string_view text) {
  uint8_t sum = 0;
  for (const char c : text) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  return fmt::format("${}#{:02x}", text, sum);
}

}  // namespace reprise::replay::gdb
