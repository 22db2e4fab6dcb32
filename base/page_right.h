// The unit of asking and granting.
#pragma once

#include "base/state.h"
#include "base/units.h"

namespace reprise {

// One page and the strongest right that is needed, or granted, on it.
struct PageRight {
  PageNumber page;
  Right right = Right::kNone;
  constexpr bool operator==(const PageRight&) const = default;
  void visit(StateVisitor& visitor) {
    visitor("page", page);
    visitor("right", right);
    visitor.require(right <= Right::kWrite, "right");
  }
};

}  // namespace reprise
