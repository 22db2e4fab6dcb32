// What a debugger asks to be told of while a vCPU runs.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "base/units.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

enum class WatchVerdict {
  kHandle,  // the exit is one like others
  kDone,    // it was dealt with, and nothing of it counts
  kCaught,  // advance() ends with kCaught
};

struct VcpuWatch {
  // Before each entry.
  std::function<Status()> entry;
  // Asked about each exit before it is handled.
  std::function<Result<WatchVerdict>(ExitKind)> exit;
  // Asked when KVM has to be answered again before the instruction of a stop is complete: true is kCaught.
  // Where it emulates, that may be the next instruction already.
  std::function<bool(ExitKind)> part;
  // Told of each access to RAM that is made for the guest, with the page granted: true is kCaught.
  std::function<Result<bool>(Gpa, uint64_t bytes, bool is_write)> access;
};

}  // namespace reprise::vmm
