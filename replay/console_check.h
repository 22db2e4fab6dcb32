// Compares what the guest of a replay writes to its console with what was recorded, byte by byte as it comes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "log/recording_reader.h"

namespace reprise::replay {

// Holds one buffer of the recorded bytes, however many there are. Threads: write() is for any one at a time
// (the vCPU whose exit it is); the rest for the owner, while no vCPU runs.
class ConsoleCheck {
 public:
  // Errors: kDamaged, also if the console is not what `final` says.
  static Result<ConsoleCheck> create(const log::Recording& recording);

  // The guest's next byte. A difference shows in finish().
  void write(uint8_t byte);
  // The next byte of a guest that goes another way than the recorded one: only counted. seek() comes after
  // it.
  void skip() { ++written_; }
  // The guest is, again or at once, where it has written so many bytes, as recorded.
  void seek(uint64_t bytes);
  [[nodiscard]] uint64_t written() const { return written_; }

  // Whether all that was written is what was recorded; where `whole`, also whether there was no more. In a
  // prefix, the shorter one counts. Errors: kDivergence; kDamaged where the recorded bytes cannot be read.
  [[nodiscard]] Status finish(bool whole) const;

 private:
  ConsoleCheck(std::optional<log::ConsoleReader> reader, std::optional<uint64_t> bytes)
      : reader_(std::move(reader)), recorded_bytes_(bytes) {}
  void fill();

  std::optional<log::ConsoleReader> reader_;  // none: there is nothing to compare with
  bool read_to_end_ = false;
  std::optional<uint64_t> recorded_bytes_;  // none in a prefix
  std::span<const uint8_t> recorded_;       // from the next byte on
  uint64_t written_ = 0;
  std::optional<uint64_t> differs_;  // the first byte that does
  std::optional<Error> error_;
};

}  // namespace reprise::replay
