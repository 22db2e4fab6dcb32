// Stops at accesses to ranges of guest memory, by the host's page permissions below the views' own.
#pragma once

#include <set>
#include <vector>

#include "vmm/machine.h"
#include "x86/access.h"

namespace reprise::replay {

// Guest-physical, so it does not matter through which address, and in whose address space, it is accessed.
struct WatchedRange {
  Gpa start;
  uint64_t bytes = 1;
  bool reads = false;   // look at reads,
  bool writes = false;  // at writes; a read-modify-write is both
};

struct TouchedRange {
  size_t index = 0;     // in `ranges`
  uint64_t offset = 0;  // of the first byte that is accessed in it
};
// The first of `ranges` that one of these accesses touches, as it looks at; translated by the page tables of
// this vCPU. Errors: kHost.
[[nodiscard]] Result<std::optional<TouchedRange>> find_touched(vmm::Machine& machine, VcpuId vcpu,
                                                               std::span<const x86::DataTouch> touches,
                                                               std::span<const WatchedRange> ranges);

// The same of what devices have accessed.
[[nodiscard]] std::optional<TouchedRange> find_touched(std::span<const vmm::PhysicalAccess> accesses,
                                                       std::span<const WatchedRange> ranges);

// As planted bytes (replay/debug/software_breakpoints.h): for machines that run to find out where something
// is, and are thrown away. Every access to a page with a range in it is an exit, whatever the view grants;
// what is not an access to the range is carried out with the page given back for one instruction, and counts
// as nothing. Threads: confined to the thread that runs the machine.
class WatchedMemory {
 public:
  // Errors: kUsage for ranges that are no RAM, or on pages that each vCPU has its own of.
  static Status check(vmm::Machine& machine, std::span<const WatchedRange> ranges);
  // Errors: as check(); kHost.
  static Result<std::unique_ptr<WatchedMemory>> watch(vmm::Machine& machine,
                                                      std::vector<WatchedRange> ranges);
  ~WatchedMemory();
  WatchedMemory(const WatchedMemory&) = delete;
  WatchedMemory& operator=(const WatchedMemory&) = delete;

  // What an exit of this vCPU is about: something else (kHandle); an access to a range, or one that cannot be
  // told from it without executing it (kCaught); one that was carried out (kDone). Errors: kHost.
  Result<vmm::Vcpu::Verdict> look_at(VcpuId vcpu, vmm::ExitKind exit);
  // Whether the exit is one that the view would not have made.
  [[nodiscard]] bool is_restricted_access(VcpuId vcpu, vmm::ExitKind exit);
  // An access that is made for this vCPU, with the page granted: whether it is one to a range. Errors: kHost.
  Result<bool> is_touched(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write);
  // Whether devices have accessed a range since the last call.
  [[nodiscard]] bool is_touched_by_devices();
  // Before each entry of this vCPU. Errors: kHost.
  Status enter(VcpuId vcpu);

 private:
  WatchedMemory(vmm::Machine& machine, std::vector<WatchedRange> ranges);
  Status restrict(VcpuId vcpu);
  Status reveal(VcpuId vcpu);
  [[nodiscard]] bool touches(Gpa gpa, uint64_t bytes, bool is_write) const;
  [[nodiscard]] bool is_restricted(PageNumber page, Right needed) const;
  Result<vmm::Vcpu::Verdict> look_at_instruction(VcpuId vcpu);
  Result<vmm::Vcpu::Verdict> look_at_mmio(VcpuId vcpu);
  // Carries out the next instruction with the pages given back.
  Result<vmm::Vcpu::Verdict> step_across(VcpuId vcpu);

  vmm::Machine& machine_;
  std::vector<WatchedRange> ranges_;
  std::map<PageNumber, Right> left_;  // what is left of each page
  std::vector<bool> revealed_;        // of each vCPU, until it enters
};

}  // namespace reprise::replay
