// A replay one vCPU at a time, in the order of tickets: each vCPU executes as late as it can, just before it
// takes a ticket.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/recording_reader.h"

namespace reprise::replay {

// Of a gain or a loss; nothing: the event is none.
std::optional<Ticket> ticket_of(const log::Event& event);

// Whose turn it is. What a vCPU executes between two of its tickets belongs to the second one: until it takes
// that, it uses only pages that it has, so nobody can tell. After the last ticket the vCPUs execute to their
// ends, in order of their numbers. Threads: confined to one thread.
class TotalOrder {
 public:
  // Reads all logs once. Errors: kDamaged, also where a ticket is used twice, or missing in a finished
  // recording. Cost: one byte for each ticket that the logs have, whatever numbers they claim.
  static Result<TotalOrder> read(const log::Recording& recording);

  // The ticket that is taken next, from 1 on; last() + 1 when all are taken.
  [[nodiscard]] Ticket next() const { return Ticket(next_); }
  [[nodiscard]] Ticket last() const { return Ticket(owners_.size()); }
  [[nodiscard]] bool is_due(Ticket ticket) const { return ticket.raw == next_; }
  // Whether this vCPU takes the next ticket; after the last one, true for all.
  [[nodiscard]] bool is_turn_of(VcpuId vcpu) const { return all_taken() || owner() == vcpu; }
  [[nodiscard]] bool all_taken() const { return next_ > owners_.size(); }
  // Requires: !all_taken().
  [[nodiscard]] VcpuId owner() const { return VcpuId(owners_[next_ - 1]); }
  // Of any ticket. Requires: 1 <= ticket <= last().
  [[nodiscard]] VcpuId owner_of(Ticket ticket) const { return VcpuId(owners_[ticket.raw - 1]); }
  void take() { ++next_; }
  // Back (or on) to where `next` is taken next.
  void go_to(Ticket next) { next_ = next.raw; }

 private:
  explicit TotalOrder(std::vector<uint8_t> owners) : owners_(std::move(owners)) {}
  std::vector<uint8_t> owners_;  // vCPU of ticket i + 1; up to the first that is in no log (of a prefix)
  uint64_t next_ = 1;
};

}  // namespace reprise::replay
