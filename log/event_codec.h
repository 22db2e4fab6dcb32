// Events to the bytes of a block's payload and back (schema.proto, message Block). The only place that knows
// how events are delta-encoded.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "log/event.h"
#include "log/hash.h"
#include "log/schema.pb.h"

namespace reprise::log {

// What the next event's fields are subtracted from. Starts at zero in every block.
// Threads: confined to its encoder or decoder.
struct DeltaState {
  Position position;
  uint64_t ticket = 0;
  uint64_t page = 0;
  std::unordered_map<uint64_t, uint32_t> version_of_page;
  std::array<uint64_t, 256> value_of_source = {};

  void restart();
};

// Collects events into one block.
// Threads: confined to its owner.
class BlockEncoder {
 public:
  // Adds an event; returns by how many bytes the raw payload grows (exact but for the few bytes of tags and
  // lengths that each column has once).
  // Requires: a Gain has at most kMaxPagesPerGain pages, an Input kMaxInputBytes. Cost: 40 to 150 ns; a new
  // page in the block allocates.
  size_t add(const Event& event);

  [[nodiscard]] uint32_t count() const { return count_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] Position first_position() const { return first_position_; }
  [[nodiscard]] Ticket first_ticket() const { return first_ticket_; }  // 0 = none in this block

  // Replaces `raw` by the payload of all events since the last take(), and starts the next block.
  void take(std::string& raw);

 private:
  size_t add_ticket(Ticket ticket);
  size_t add_page(const PageStep& step);
  size_t add_what(const Gain& gain);
  size_t add_what(const Loss& loss);
  size_t add_what(const Value& value);
  size_t add_what(const ApicMessage& message);
  size_t add_what(const Digest& digest);
  size_t add_what(const End& end);
  size_t add_what(const Spin& spin);
  size_t add_what(const MachineDigest& digest);
  size_t add_what(const Input& input);
  size_t add_what(const UserBreakpoint& at);
  size_t add_what(const Preemption& at);

  pb::Block block_;
  DeltaState state_;
  uint32_t count_ = 0;
  size_t bytes_ = 0;
  Position first_position_;
  Ticket first_ticket_;
};

// Replaces `events` by those of one raw payload, which must be exactly `count`.
// Errors: kDamaged with what does not fit; any bytes whatever may be given.
Status decode_block(Bytes raw, uint32_t count, std::vector<Event>& events);

}  // namespace reprise::log
