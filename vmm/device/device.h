// The seam between a stopped vCPU and the devices that it talks to.
//
// A device is a pure state machine: what the guest sees of it follows from the guest's accesses, in the order
// in which the vCPU made them, and from values that the vCPU's journal gives. A device has no clock, no
// random numbers, no threads and no file descriptors. What it wants done to the world it returns as effects,
// and the machine carries them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/state.h"
#include "base/units.h"
#include "log/event.h"
#include "vmm/device/device_context.h"

namespace reprise::vmm {

// A message for the local APIC of another vCPU. The receiver's journal decides where it arrives.
struct SendMessage {
  VcpuId destination;
  log::ApicMessage message;
  bool operator==(const SendMessage&) const = default;
};

// The timer of this vCPU's local APIC starts; it replaces a running one. When it is due, the machine sends
// the vCPU an ApicMessage of kind kTimer. All times are virtual time.
struct ArmTimer {
  uint64_t delay_ns = 0;   // from now to the first message; below 2^39
  uint64_t period_ns = 0;  // between later messages; 0: there are none
  uint32_t count_ns = 1;   // how long one unit of the current count lasts, 1 to 128
  bool operator==(const ArmTimer&) const = default;
};

// The timer of this vCPU's local APIC stops: no kTimer message until it is armed again.
struct DisarmTimer {
  bool operator==(const DisarmTimer&) const = default;
};

// A device's interrupt line goes up. The machine's I/O APIC decides what follows; who has no I/O APIC has no
// such devices.
struct RaiseLine {
  uint8_t line = 0;  // an ISA IRQ, 0 to 15, or a pin of the I/O APIC from 16 on
  bool operator==(const RaiseLine&) const = default;
};

// The interval timer (PIT channel 0) starts anew, or stops if `delay_ns` is 0. When it is due, the machine
// sends vCPU 0 an Input of the interval timer. Virtual time.
struct SetTick {
  uint64_t delay_ns = 0;
  uint64_t period_ns = 0;  // 0: once
  bool operator==(const SetTick&) const = default;
};

// The guest asks for the machine to stop; 0 is success.
struct StopMachine {
  uint32_t status = 0;
  bool operator==(const StopMachine&) const = default;
};

using Effect = std::variant<SendMessage, ArmTimer, DisarmTimer, StopMachine, RaiseLine, SetTick>;
using Effects = std::vector<Effect>;  // to be carried out in order; nearly always empty

// One device as an access sees it. `offset` counts from the start of the claimed range; `bytes` is 1 to 8,
// and the access lies within the range (IoMap sees to both). The guest chooses all three, so a handler must
// do something sensible with every value.
//
// Threads: as IoMap's claim says: confined to one vCPU, or stateless, or used only by who owns the device.
class IoHandler {
 public:
  virtual ~IoHandler() = default;

  // The value read, in the low `bytes` bytes. Errors: only those of `context`.
  virtual Result<uint64_t> read(uint64_t offset, unsigned bytes, DeviceContext& context) = 0;
  // `value` has no bits above `bytes`. Errors: none so far; a Result so that a device may need a value here.
  virtual Result<Effects> write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) = 0;

  // Everything that later answers depend on. A handler does something sensible in any state, for one may come
  // from a file.
  virtual void visit(StateVisitor& /*visitor*/) {}
};

}  // namespace reprise::vmm
