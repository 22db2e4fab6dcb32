// What a vCPU's run came to, and the vCPU as checkpoints keep it.
#pragma once

#include <cstdint>
#include <string>

#include "base/state.h"
#include "vmm/kvm/kvm.h"

namespace reprise::vmm {

// Beside its effects.
struct VcpuStatistics {
  uint64_t stops = 0;
  uint64_t traps = 0;
  uint64_t faults = 0;
  uint64_t port_io = 0;
  uint64_t mmio = 0;
  uint64_t halts = 0;
  uint64_t windows = 0;  // interrupt windows
  uint64_t msrs = 0;
  uint64_t times = 0;  // time-stamp counter reads
  uint64_t pauses = 0;
  uint64_t spins = 0;           // stops in loops
  uint64_t breakpoints = 0;     // stops at addresses in user mode
  uint64_t modules = 0;         // of the kernel, that were loaded
  uint64_t module_patches = 0;  // instructions that were replaced in them
  uint64_t interrupts = 0;
  uint64_t host_faults = 0;
  uint64_t decode_ns = 0;
  uint64_t guest_ns = 0;  // in KVM_RUN
};

// A vCPU between two stops, without what belongs to its journal, to its memory and to its local APIC.
struct VcpuState {
  KvmVcpuState kvm;
  std::string own;  // what VcpuContext, FaultResolver and Injector list
  void visit(StateVisitor& visitor) {
    visitor("kvm", kvm);
    visitor("own", own);
  }
};

}  // namespace reprise::vmm
