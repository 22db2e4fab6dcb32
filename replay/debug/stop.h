// Where a debugger wants the machine to stop, and why it has stopped.
#pragma once

#include <compare>
#include <cstdint>

#include "base/units.h"

namespace reprise::replay {

enum class BreakpointKind : uint8_t {
  kSoftware,
  kHardware,
  kWrite,
  kRead,
  kAccess
};  // the last three are watchpoints

// Two with equal members are the same. A place to stop at has length 0.
struct Breakpoint {
  BreakpointKind kind = BreakpointKind::kSoftware;
  Gva address;
  uint64_t length = 0;  // watched bytes; at least 1, and address + length does not wrap
  auto operator<=>(const Breakpoint&) const = default;
  [[nodiscard]] bool is_watchpoint() const { return kind >= BreakpointKind::kWrite; }
};

enum class StopReason : uint8_t {
  kBreakpoint,   // `vcpu` is about to execute the instruction at `hit`
  kWatchpoint,   // forward: `vcpu` has just made the access to `hit`; backward: it is about to make it
  kStep,         // the step that was asked for is done
  kBegin,        // nothing was recorded before
  kEnd,          // nothing was recorded after
  kInterrupted,  // RunListener::interrupted() said yes
};

// Why and where the machine stands after it has run.
struct StopEvent {
  StopReason reason = StopReason::kStep;
  VcpuId vcpu;
  Breakpoint hit;          // of kBreakpoint and kWatchpoint: which one
  Gva accessed;            // of kWatchpoint: the first byte in the watched range that was accessed
  bool by_device = false;  // of kWatchpoint: by a device, because of what `vcpu` did
};

// Who waits for something long. Threads: called on the thread that called the target.
class Interruption {
 public:
  virtual ~Interruption() = default;
  // Whether to come to an end now. Cost: a system call; asking every 10 to 100 ms is often enough.
  [[nodiscard]] virtual bool interrupted() = 0;
};

class RunListener : public Interruption {
 public:
  // Whether the machine is to stop for this kBreakpoint. Called with the machine as it would be seen after
  // the stop: registers() and read() answer for that point. No: it runs on, over the instruction.
  [[nodiscard]] virtual bool wants(const StopEvent& stop) = 0;
};

}  // namespace reprise::replay
