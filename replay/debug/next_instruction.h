// What a vCPU that stands still is about to do, and doing it: for debugging, whatever its view grants.
#pragma once

#include <optional>
#include <vector>

#include "vmm/machine.h"
#include "x86/access.h"

namespace reprise::replay {

struct NextInstruction {
  x86::AccessSet set;
  std::vector<x86::DataTouch> touches;  // the ranges of its operands and of the stack
  bool is_instruction = false;          // no exception or interrupt is delivered first, or instead
};

// Nothing: nobody knows what it does. Errors: kHost.
[[nodiscard]] Result<std::optional<NextInstruction>> decode_next(vmm::Machine& machine, VcpuId vcpu);
// Of that, the touches; none where it raises an exception, or cannot be decoded. Errors: kHost.
[[nodiscard]] Result<std::vector<x86::DataTouch>> next_touches(vmm::Machine& machine, VcpuId vcpu);

// Carries out the next instruction by a trace (vmm/step/single_step.h), natively and without any exit that
// would count. False: that cannot be done with this one; or it made an exit, which KVM may be in the middle
// of. Requires: its pages are granted, else it makes one. Errors: kHost.
Result<bool> trace_next(vmm::Machine& machine, VcpuId vcpu);
// The same with one that needs nothing but RAM that is granted. False: it is another one, and nothing was
// done.
Result<bool> trace_next_if_granted(vmm::Machine& machine, VcpuId vcpu);

}  // namespace reprise::replay
