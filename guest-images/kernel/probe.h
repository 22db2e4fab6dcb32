// Page faults on purpose. A page fault of the first instruction of probe_load() or probe_store()
// (runtime/probe.S) is an answer and no crash: an exception table of two entries. Nothing is registered, so
// any thread may probe.
#pragma once

#include "kernel/thread_frame.h"

extern "C" const uint8_t probe_load[], probe_store[], probe_faulted[];

namespace reprise::guest::kernel {

inline bool is_probe_fault(const ThreadFrame& frame) {
  constexpr uint64_t kPageFault = 14;
  return frame.vector == kPageFault && frame.from_user() &&
         (frame.rip == reinterpret_cast<uint64_t>(probe_load) ||
          frame.rip == reinterpret_cast<uint64_t>(probe_store));
}

// The probe returns a Probe (runtime/probe.h), whose two words are rax and rdx.
inline void fail_probe(ThreadFrame& frame) {
  constexpr uint64_t kFaulted = uint64_t{1} << 32;
  uint64_t address;
  asm("movq %%cr2, %0" : "=r"(address));
  frame.rax = kFaulted | frame.error;
  frame.rdx = address;
  frame.rip = reinterpret_cast<uint64_t>(probe_faulted);
}

}  // namespace reprise::guest::kernel
