#include "log/vcpu_log_reader.h"

#include <span>
#include <utility>

#include "log/ticket_of.h"

namespace reprise::log {

Result<std::optional<Event>> VcpuLogReader::next() {
  TRY(fill());
  if (at_end_) return std::nullopt;
  return std::move(events_[next_++]);
}

Result<const Event*> VcpuLogReader::peek() {
  TRY(fill());
  return at_end_ ? nullptr : &events_[next_];
}

// Makes events_[next_] the next event, or at_end_ true.
Status VcpuLogReader::fill() {
  if (error_) return tl::unexpected(*error_);
  if (next_ < events_.size() || at_end_) return {};
  Status read = read_block();
  if (!read) error_ = read.error();
  return read;
}

Status VcpuLogReader::seek(const LogCursor& cursor) {
  error_.reset();
  blocks_->seek(cursor.offset, cursor.block);
  at_end_ = false;
  ended_ = cursor.ended;
  events_.clear();
  next_ = block_offset_ = 0;
  TRY(fill());
  if (cursor.event > events_.size()) return fail(ErrorCode::kDamaged, "the log has no such place");
  next_ = cursor.event;
  return {};
}

Status VcpuLogReader::read_block() {
  next_ = 0;
  block_offset_ = blocks_->offset();
  block_number_ = blocks_->next_number();
  TRY_ASSIGN(const bool more, blocks_->next(events_));
  if (!more) {
    at_end_ = true;
    return check_end();
  }
  for (const Event& event : events_) {
    if (ended_) return blocks_->damaged("there are events behind the end of the machine");
    ended_ = std::holds_alternative<End>(event.what);
    TRY(check_limits(event));
  }
  return {};
}

Status VcpuLogReader::check_limits(const Event& event) const {
  std::span<const PageStep> steps;
  if (const auto* gain = std::get_if<Gain>(&event.what)) steps = gain->pages;
  if (const auto* loss = std::get_if<Loss>(&event.what)) steps = {&loss->page, 1};
  if (const auto ticket = ticket_of(event); ticket.has_value() && *ticket > limits_.last)
    return blocks_->damaged(
        fmt::format("it has ticket {}, the last one is {}", ticket->raw, limits_.last.raw));
  for (const PageStep& step : steps)
    if (step.page >= limits_.pages)
      return blocks_->damaged(
          fmt::format("it names page {:#x}, which the machine does not have", step.page.raw));
  return {};
}

Status VcpuLogReader::check_end() const {
  if (end_ == LogEnd::kAnywhere) return {};
  if (blocks_->torn()) return blocks_->damaged("the file ends here, inside a block of a finished recording");
  if (!ended_) return blocks_->damaged("the file ends here, without the end event of a finished recording");
  return {};
}

}  // namespace reprise::log
