// The transitions of a recording: which vCPU got or gave up which pages, in the order of tickets.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/recording_reader.h"

namespace reprise::analysis {

// A Gain or a Loss of one vCPU.
struct Transition {
  VcpuId vcpu;
  log::Event event;
  [[nodiscard]] Ticket ticket() const;
  [[nodiscard]] bool is_gain() const { return std::holds_alternative<log::Gain>(event.what); }
  // What the vCPU may do with the pages afterwards.
  [[nodiscard]] Right right() const;
  [[nodiscard]] std::span<const log::PageStep> pages() const;
  // Its part that is about this page, or null.
  [[nodiscard]] const log::PageStep* step_of(PageNumber page) const;
};

// Reads through the recording's index: only the blocks that hold what is asked for. It remembers which pages
// each block that it has read is about, so a second question about a page reads less. Threads: confined to
// one.
class TransitionLog {
 public:
  // `recording` outlives it. Errors: kDamaged. Cost: reads the index; of a prefix, which has none, all logs
  // once.
  static Result<TransitionLog> open(const log::Recording& recording);

  // The turn of vCPUs that merge and split: who has it for writing may write to all memory. Nothing: they do
  // not.
  [[nodiscard]] std::optional<PageNumber> turn() const;
  // The last ticket that is in a log; 0 if there is none. Errors: kDamaged.
  Result<Ticket> last();

  // Those with begin <= ticket < end, in order. Errors: kDamaged.
  Result<std::vector<Transition>> between(Ticket begin, Ticket end);

  // In order, each that is in the range, until `visit` returns false. Errors: kDamaged.
  Status forward(Ticket begin, Ticket end, const std::function<bool(const Transition&)>& visit);
  // Those of one page with ticket < end, the latest first, until `visit` returns false. Ends by itself at the
  // page's first transition. Errors: kDamaged.
  Status backward(PageNumber page, Ticket end, const std::function<bool(const Transition&)>& visit);

  // Events of any kind of one vCPU next to a position: `count` at most, half of them before it. Errors:
  // kDamaged.
  Result<std::vector<log::Event>> near(VcpuId vcpu, Position position, size_t count);

  // Since it was opened, and how many there are.
  [[nodiscard]] uint64_t blocks_read() const { return blocks_read_; }
  [[nodiscard]] uint64_t blocks() const;

 private:
  // The block of one log that was read last.
  struct Block {
    std::optional<uint32_t> number;
    std::vector<Transition> transitions;
  };

  explicit TransitionLog(const log::Recording& recording, log::pb::Index index);
  // The blocks that hold a ticket in [begin, end), of one log.
  [[nodiscard]] std::vector<uint32_t> blocks_of(VcpuId vcpu, Ticket begin, Ticket end) const;
  Result<std::vector<log::Event>> read_events(VcpuId vcpu, uint32_t number);
  Result<const std::vector<Transition>*> read(VcpuId vcpu, uint32_t number);
  [[nodiscard]] bool may_hold(VcpuId vcpu, uint32_t number, PageNumber page) const;

  const log::Recording* recording_;
  log::pb::Index index_;
  std::vector<Ticket>
      boundaries_;             // first tickets of all blocks, in order: between two, each log has one block
  std::vector<Block> latest_;  // of each vCPU
  std::vector<std::map<uint32_t, std::vector<PageNumber>>> pages_;  // of each vCPU's blocks: sorted
  uint64_t blocks_read_ = 0;
};

// The transitions next to a moment in the order of tickets, `count` at most: half of them before `next`, the
// ticket that is taken then. Behind the last ticket: the last ones. Errors: kDamaged.
Result<std::vector<Transition>> nearest(TransitionLog& log, Ticket next, uint32_t count);

}  // namespace reprise::analysis
