// Every interrupt and exception comes here, from either level, with interrupts off.
#include "kernel/fault_report.h"
#include "kernel/local_apic.h"
#include "kernel/probe.h"
#include "kernel/shootdown.h"
#include "kernel/system_calls.h"
#include "kernel/threads.h"

namespace reprise::guest::kernel {
namespace {

constexpr uint64_t kUndefinedOpcode = 6;
constexpr uint64_t kExceptions = 32;  // vectors below are the processor's own

bool is_system_call(const ThreadFrame& frame) {
  const auto* code = reinterpret_cast<const uint8_t*>(frame.rip);
  return frame.vector == kUndefinedOpcode && frame.from_user() && code[0] == 0x0f && code[1] == 0x0b;
}

}  // namespace

extern "C" void kernel_entry(ThreadFrame* frame) {
  if (is_system_call(*frame)) {
    frame->rip += 2;
    system_call(*frame);
  } else if (frame->vector == kTimerVector) {
    end_of_interrupt();
    if (frame->from_user()) preempt_thread(*frame);
  } else if (frame->vector == kWakeVector) {
    end_of_interrupt();  // waking was all
  } else if (frame->vector == kShootdownVector) {
    end_of_interrupt();
    serve_shootdown();
  } else if (is_probe_fault(*frame)) {
    fail_probe(*frame);
  } else if (frame->vector != kSpuriousVector &&
             !(frame->vector < kExceptions && continue_after_fault(*frame))) {
    report_fault(*frame);
  }
}

}  // namespace reprise::guest::kernel
