// What a recording holds for one vCPU: the decisions that the outside world made for it, in the order of the
// vCPU's own history. Everything else that the guest does follows from these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/state.h"
#include "base/units.h"

namespace reprise::log {

// Where a value comes from that the guest read from outside. Written into recordings: never renumber.
enum class Source : uint8_t {
  kTime = 1,           // HPET main counter
  kTimerCount = 2,     // local APIC timer, current count
  kConsoleInput = 3,   // no longer written: input arrives as messages of kind kConsole
  kConsoleStatus = 4,  // no longer written
  kRandom = 5,         // virtio-rng: eight random bytes
};
std::string_view name(Source source);

// One page's part in a transition: `version` counts the transitions that the page had before this one.
struct PageStep {
  PageNumber page;
  uint32_t version = 0;
  bool operator==(const PageStep&) const = default;
};

// This vCPU, stopped at an ownership fault, gets `right` on all of `pages` in one step.
struct Gain {
  Ticket ticket;
  Right right = Right::kRead;
  std::vector<PageStep> pages;
  bool operator==(const Gain&) const = default;
};

// This vCPU gives up a page at this position, as far as `left` (kNone or kRead).
struct Loss {
  Ticket ticket;
  Right left = Right::kNone;
  PageStep page;
  bool operator==(const Loss&) const = default;
};

// The guest read something from outside.
struct Value {
  Source source = Source::kTime;
  uint64_t value = 0;
  bool operator==(const Value&) const = default;
};

// A message reaches this vCPU's local APIC here. Written into recordings: never renumber; 6 and 7 were inputs
// (format version 1).
enum class ApicMessageKind : uint8_t {
  kFixed = 1,
  kNmi = 2,
  kInit = 3,
  kStartup = 4,
  kTimer = 5,
};
struct ApicMessage {
  ApicMessageKind kind = ApicMessageKind::kFixed;
  uint8_t vector = 0;  // kFixed: 16..255; kStartup: real-mode page; otherwise 0
  bool operator==(const ApicMessage&) const = default;
};

// Something from outside reaches a device here, on the thread of this vCPU. Written into recordings: never
// renumber.
enum class InputDevice : uint8_t {
  kIntervalTimer = 1,  // it is due: its line goes up; no bytes
  kConsole = 2,        // what was typed
};
std::string_view name(InputDevice device);
struct Input {
  InputDevice device = InputDevice::kConsole;
  std::string bytes;  // at most kMaxInputBytes (log/format.h)
  bool operator==(const Input&) const = default;
  void visit(StateVisitor& visitor) {
    visitor("device", device);
    visitor("bytes", bytes);
    visitor.require(device == InputDevice::kIntervalTimer || device == InputDevice::kConsole, "device");
  }
};
// A number for the bytes, which goes into the digests that follow. One byte is its own, as it was in format
// version 1.
uint64_t digest_of(const Input& input);

// What comes to a vCPU from outside.
using Arrival = std::variant<ApicMessage, Input>;

// The digest of the registers at a completed deterministic stop (vmm/register_digest.h), of every k-th.
struct Digest {
  uint64_t registers = 0;
  bool operator==(const Digest&) const = default;
};

// The machine stops: this vCPU executes nothing after this position. Always the last event.
struct End {
  uint64_t registers = 0;
  bool operator==(const End&) const = default;
};

// After this position the vCPU came into a loop that changes nothing but registers, and those only in a
// circle; it was made to stop there, where its registers have this digest (vmm/register_digest.h, of these
// registers alone). That is its next stop.
struct Spin {
  uint64_t registers = 0;
  uint32_t period = 0;  // instructions of one turn, as single-stepping counts them
  bool operator==(const Spin&) const = default;
};

// After this position the vCPU came to this address in user mode, where its general registers, and the rest
// of what the program can see, have these digests (vmm/clock/user_state.h); it was made to stop there. That
// is its next stop.
struct UserBreakpoint {
  Gva address;
  uint64_t registers = 0;
  uint64_t rest = 0;
  bool operator==(const UserBreakpoint&) const = default;
};

// The vCPU was stopped at this position, where no stop of its own is (branch clock): at the instruction at
// `rip`, with general registers of this digest (vmm/register_digest.h, of these registers alone). Between two
// branches only they tell one instruction from another. That is its next stop.
struct Preemption {
  Gva rip;
  uint64_t registers = 0;
  bool operator==(const Preemption&) const = default;
};

// The digest of memory, shared devices and this vCPU's local APIC at a completed deterministic stop, of every
// k-th. Only in serial mode, where the vCPU that stops is the only one that changes any of these.
struct MachineDigest {
  uint64_t machine = 0;
  bool operator==(const MachineDigest&) const = default;
};

struct Event {
  Position position;
  std::variant<Gain, Loss, Value, ApicMessage, Digest, End, Spin, MachineDigest, Input, UserBreakpoint,
               Preemption>
      what;
  bool operator==(const Event&) const = default;
};
// "gain", "loss", "value", "message", "digest", "end", "spin", "machine", "input", "breakpoint",
// "preemption"
std::string_view kind_name(const Event& event);

}  // namespace reprise::log
