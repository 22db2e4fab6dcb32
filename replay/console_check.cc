#include "replay/console_check.h"

#include <utility>

namespace reprise::replay {

Result<ConsoleCheck> ConsoleCheck::create(const log::Recording& recording) {
  // Before anything runs: what is damaged is refused first.
  TRY(recording.check_console());
  TRY_ASSIGN(auto reader, recording.open_console());
  const auto& final = recording.final();
  return ConsoleCheck(std::move(reader),
                      final.has_value() ? std::optional(final->console_bytes()) : std::nullopt);
}

void ConsoleCheck::write(uint8_t byte) {
  if (recorded_.empty()) fill();
  const uint64_t at = written_++;
  if (differs_.has_value()) return;
  if (recorded_.empty()) {
    if (recorded_bytes_.has_value()) differs_ = at;
    return;
  }
  if (recorded_.front() != byte) differs_ = at;
  recorded_ = recorded_.subspan(1);
}

void ConsoleCheck::fill() {
  if (!reader_.has_value() || read_to_end_) return;
  auto piece = reader_->next();
  if (!piece) error_ = piece.error();
  read_to_end_ = !piece || piece->empty();
  if (!read_to_end_) recorded_ = *piece;
}

void ConsoleCheck::seek(uint64_t bytes) {
  written_ = bytes;
  recorded_ = {};
  read_to_end_ = false;
  if (reader_.has_value()) reader_->seek(bytes);
  if (differs_.has_value() && *differs_ >= bytes) differs_.reset();
}

Status ConsoleCheck::finish(bool whole) const {
  if (error_.has_value()) return tl::unexpected(*error_);
  const bool shorter = whole && recorded_bytes_.has_value() && written_ < *recorded_bytes_;
  if (!differs_.has_value() && !shorter) return {};
  return fail(
      ErrorCode::kDivergence,
      "the replay differs from the recording at its end: console output differs from byte {} on ({} bytes "
      "recorded, {} replayed)",
      differs_.value_or(written_),
      recorded_bytes_.has_value() ? std::to_string(*recorded_bytes_) : "an unknown number of", written_);
}

}  // namespace reprise::replay
