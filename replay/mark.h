// A moment of a replay whose vCPUs run one at a time.
#pragma once

#include <compare>
#include <string>

#include "base/units.h"

namespace reprise::replay {

// The first moment at which `next` is the ticket that is taken next and `vcpu`, whose turn it is then, has come to `position`. Marks of one recording
// are ordered as the moments are, whoever made them: before the last ticket `vcpu` follows from `next`.
struct Mark {
  Ticket next;
  VcpuId vcpu;
  Position position;

  bool operator==(const Mark&) const = default;
  std::strong_ordering operator<=>(const Mark& other) const {
    if (const auto order = next.raw <=> other.next.raw; order != 0) return order;
    if (const auto order = vcpu.raw <=> other.vcpu.raw; order != 0) return order;
    if (const auto order = position.stops <=> other.position.stops; order != 0) return order;
    return position.ticks.raw <=> other.position.ticks.raw;
  }
};

// "ticket 17, vCPU 1 at 205:88123"
std::string to_text(const Mark& mark);

}  // namespace reprise::replay
