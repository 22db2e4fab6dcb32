// Bytes to and from whoever debugs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

namespace reprise::replay::gdb {

// Threads: confined to the thread that serves GDB.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Reads what there is, at most out.size() bytes, and returns how many; if `wait`, waits for the first one,
  // else there may be none. Nothing: the other side has closed, and no more will come. Errors: kHost.
  virtual Result<std::optional<size_t>> read(std::span<uint8_t> out, bool wait) = 0;
  // Writes all. Errors: kHost, also if the other side does not take it for kWritePatienceMs.
  virtual Status write(std::span<const uint8_t> bytes) = 0;
};

// Milliseconds. GDB reads at once; who does not for so long is stopped or hostile, and must not keep others
// from attaching.
inline constexpr int kWritePatienceMs = 10'000;

}  // namespace reprise::replay::gdb
