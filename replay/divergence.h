// What record and replay disagree about, for people and machines.
#pragma once

#include <deque>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "log/event.h"

namespace reprise::replay {

struct Divergence {
  VcpuId vcpu;
  Position at;
  std::string expected;  // what the recording holds
  std::string found;     // what the replay did
  std::deque<log::Event>
      recent;  // the last events of this vCPU that agreed, oldest first; at most kRecentEvents
};
inline constexpr size_t kRecentEvents = 20;

// Several lines: both sides, then the last events.
std::string to_text(const Divergence& divergence);
// As an Error with code kDivergence.
Error to_error(const Divergence& divergence);

}  // namespace reprise::replay
