// How one instruction can be carried out alone: what it is decides.
#pragma once

#include <linux/kvm.h>

#include <optional>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/kvm/kvm.h"
#include "x86/linear_memory.h"

namespace reprise::vmm {

enum class StepMethod {
  kTrace,        // the processor's trap after each instruction does it (vmm/step/single_step.h)
  kBreakpoints,  // natively, with halts at all places where it can lead (vmm/step/breakpoint_step.h)
  kNone,         // nothing here can: it must be entered, and the vCPU runs on to its next stop
};

// The segments that are loaded on the way to user mode, where KVM cannot say what they were.
enum class UserSegments {
  kUnchanged,
  kOfTables,  // as the selectors' descriptors say (IRET)
  kFlat,      // whatever the descriptors say (SYSRET)
};

struct LinearRange {
  Gva start;
  uint64_t bytes = 0;
};

struct StepPlan {
  StepMethod method = StepMethod::kNone;
  // kBreakpoints: where it leads, a linear address, unless it raises an exception or stops; nothing: nowhere
  // else.
  std::optional<Gva> next;
  bool next_is_user = false;  // at CPL 3
  UserSegments segments = UserSegments::kUnchanged;
  // kTrace: where it ends, if that is known before.
  std::optional<uint64_t> next_rip;
  std::optional<uint8_t> vector;    // an event above 31 that is delivered
  uint8_t shadow = 0;               // KVM_X86_SHADOW_INT_*, cast on the instruction after it
  std::vector<LinearRange> ranges;  // that a repeated string instruction goes through at most
};

// What a step came to. Neither: nothing was done.
struct StepOutcome {
  bool carried_out = false;      // the instruction is complete, or an event has come to the guest's handler
  std::optional<ExitKind> exit;  // it stopped by itself, or could not begin: to be dealt with as always
};

// What is traced can raise no exceptions but those that access decoding foresees (x86/access.h): where KVM's
// trace is not exact over exceptions, one would run the guest's whole handler. A repeated string instruction
// is one step, all repetitions together. `memory`: as the vCPU's view shows it. Errors: kHost.
Result<StepPlan> plan_step(const KvmVcpu& vcpu, const x86::LinearMemory& memory, const kvm_regs& regs,
                           const kvm_sregs& sregs);
// Of an event that is on its way into the guest. Nothing else: no such event.
std::optional<StepPlan> plan_delivery(const kvm_vcpu_events& events);

}  // namespace reprise::vmm
