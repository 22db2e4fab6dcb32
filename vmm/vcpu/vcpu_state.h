// What a vCPU's run came to, and the vCPU as checkpoints keep it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/page_right.h"
#include "base/units.h"
#include "log/event.h"
#include "vmm/device/irq/local_apic.h"
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
  uint64_t modules = 0;         // of the kernel, that were loaded
  uint64_t module_patches = 0;  // instructions that were replaced in them
  uint64_t interrupts = 0;
  uint64_t host_faults = 0;
  uint64_t decode_ns = 0;
};

// A vCPU between two stops, without what belongs to its journal and to its memory.
struct VcpuState {
  KvmVcpuState kvm;
  LocalApicState apic;
  uint64_t stops = 0, compared_stops = 0, digest = 0;  // as those of VcpuContext
  int after = 0;  // where it stands: 0 at a position, 1 at a fault, 2 nowhere
  bool halted = false, interrupts_enabled = false;
  std::optional<uint64_t> faulting;                    // as FaultResolver::faulting()
  std::optional<std::vector<PageRight>> faulting_for;  // AtFault::needed
  std::optional<log::ApicMessage> for_board;           // as Injector::for_board()
  VcpuStatistics statistics;
};

}  // namespace reprise::vmm
