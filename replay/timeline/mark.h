// A moment of a replay whose vCPUs run one at a time (replay/total_order.h), exact to the instruction.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/state.h"
#include "base/units.h"

namespace reprise::replay {

// Marks of one recording are ordered as the moments are, whoever made them. Whose turn it is follows from
// `event`.
struct Mark {
  // The ticket that is taken next; after the last one the vCPUs execute to their ends one after the other,
  // each as an event of its own.
  uint64_t event = 0;
  // Where the vCPU whose turn it is stands. Its steps are taken with its clock set to stop it at the next
  // tick.
  Position at;
  auto operator<=>(const Mark&) const = default;
  void visit(StateVisitor& visitor) {
    visitor("event", event);
    visitor("at", at);
  }
  [[nodiscard]] Mark without_steps() const { return {event, at.without_steps()}; }
};

// "EVENT.STOPS.TICKS.STEPS", decimal; parts that are zero to the end are left out.
[[nodiscard]] std::string to_text(const Mark& mark);
// Errors: kUsage if `text` is none of the above.
[[nodiscard]] Result<Mark> parse_mark(std::string_view text);

}  // namespace reprise::replay
