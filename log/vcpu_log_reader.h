// One vCPU's log while it is being read.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "log/block_reader.h"
#include "log/event.h"

namespace reprise::log {

// What the reader expects behind the last whole block.
enum class LogEnd {
  kAnywhere,  // a prefix: the file may end anywhere, even inside a block
  kEndEvent,  // the recording has a `final`: the last event is End, and nothing is cut off
};

// What the numbers in a log can be; what is beyond is damage. So readers that keep something for each page
// need no more memory than the machine has pages.
struct LogLimits {
  PageNumber pages;  // more than any page number
  Ticket last;       // the highest ticket
};

// A place between two events of one log.
struct LogCursor {
  uint64_t offset = 0;  // of the block that holds the next event, in the file
  uint32_t block = 0;   // its number
  size_t event = 0;     // in the block
  bool ended = false;   // End is behind it
};

// Streams the events of one log, holding one block at a time. After an error every call returns that error,
// until seek() leads somewhere else. Threads: confined to its owner; many readers of one file may be open.
class VcpuLogReader {
 public:
  VcpuLogReader(std::unique_ptr<BlockReader> blocks, LogEnd end, const LogLimits& limits)
      : blocks_(std::move(blocks)),
        end_(end),
        limits_(limits),
        block_offset_(blocks_->offset()),
        block_number_(blocks_->next_number()) {}

  // The next event; nothing at the end of the log (of a prefix: after its last whole block).
  // Errors: kDamaged, naming file, block number and byte offset. Cost: 60 ns for a value, 170 for a
  // transition, reading a block included.
  Result<std::optional<Event>> next();

  // The event that next() will return, or null at the end. Valid until the next call of either.
  Result<const Event*> peek();

  // Where the next event is. Requires: no error so far.
  [[nodiscard]] LogCursor cursor() const {
    return {block_offset_, block_number_, next_, ended_ && events_.empty()};
  }
  // To where cursor() was. Errors: as next().
  Status seek(const LogCursor& cursor);

  // Whether the log was found to end in the middle of a block. Known once next() has returned nothing.
  [[nodiscard]] bool torn() const { return blocks_->torn(); }

  [[nodiscard]] const BlockReader& blocks() const { return *blocks_; }

 private:
  Status fill();
  Status read_block();
  Status check_end() const;
  [[nodiscard]] Status check_limits(const Event& event) const;

  std::unique_ptr<BlockReader> blocks_;
  LogEnd end_;
  LogLimits limits_;
  std::vector<Event> events_;
  size_t next_ = 0;
  uint64_t block_offset_ = 0;  // of the block in events_
  uint32_t block_number_ = 0;
  bool at_end_ = false;
  bool ended_ = false;  // the last event read is End
  std::optional<Error> error_;
};

}  // namespace reprise::log
