// What vCPUs do to watched pages, access by access, while a replay runs.
#pragma once

#include <map>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "replay/debug/next_instruction.h"
#include "replay/timeline/timeline.h"

namespace reprise::replay {

struct MemoryAccess {
  VcpuId vcpu;
  // The position before it, with no steps; its clock may be one ahead, in the middle of a safepoint.
  Mark mark;
  Gva rip;                     // of its instruction,
  bool rip_is_behind = false;  // or of the one behind: KVM's emulator writes last
  Gva linear;
  Gpa start;
  uint32_t bytes = 0;  // all on one page
  bool reads = false;
  bool writes = false;
  bool locked = false;  // an atomic read-modify-write
  bool waits = false;   // a load of a loop that waits (x86/waiting_load.h)
  // The first eight bytes, before and after; 0 of a repeated string instruction.
  uint64_t before = 0, after = 0;
};

class AccessListener {
 public:
  virtual ~AccessListener() = default;
  virtual void accessed(const MemoryAccess& access) = 0;
  // What the vCPU may do with the page from now on without being seen.
  [[nodiscard]] virtual Right unseen(VcpuId vcpu, PageNumber page) = 0;
  // Code or page tables are on it, to be used all the time: from now on unseen() should be kWrite for it.
  virtual void is_no_data(PageNumber page) = 0;
  // The vCPU may have accessed watched pages without being seen: what it was to do could not be carried out
  // alone.
  virtual void lost_sight(VcpuId vcpu) = 0;
  // It sends a message to another vCPU's local APIC, or to its own.
  virtual void sends_message(VcpuId vcpu) = 0;
  virtual void enters(VcpuId vcpu) = 0;
};

// Every access to a watched page that its listener wants to see is an exit, whatever the view grants; it is
// looked at and carried out with the page given back for one instruction, and counts as nothing. What devices
// access is not seen. Threads: confined to the timeline's.
class AccessTrace final : public ExitWatcher {
 public:
  // All outlive it. Requires: RAM, and no page that each vCPU has its own of.
  AccessTrace(Timeline& timeline, std::vector<PageNumber> pages, AccessListener& listener);
  ~AccessTrace() override;
  AccessTrace(const AccessTrace&) = delete;
  AccessTrace& operator=(const AccessTrace&) = delete;

  // All pages that can be watched in this machine.
  static std::vector<PageNumber> all_pages(vmm::Machine& machine);
  // After what the listener wants to see of this vCPU has changed. Errors: kHost.
  Status renew(VcpuId vcpu);

  Status enter(VcpuId vcpu) override;
  Result<vmm::WatchVerdict> look_at(VcpuId vcpu, vmm::ExitKind exit) override;
  bool catches_part(VcpuId /*vcpu*/, vmm::ExitKind /*exit*/) override { return false; }
  Result<bool> catches_access(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write) override;
  bool catches_devices() override { return false; }
  bool lift() override { return false; }

 private:
  // One vCPU's.
  struct Watched {
    std::unordered_map<PageNumber, Right> left;  // of pages that are restricted
    bool is_open = false;                        // nothing is restricted, whatever `left` says
    bool stays_open = false;                     // over the next entry
  };

  Status restrict(VcpuId vcpu, PageNumber page);
  Status reveal(VcpuId vcpu, PageNumber page);
  Status open(VcpuId vcpu);
  [[nodiscard]] bool is_restricted(VcpuId vcpu, PageNumber page, Right needed) const;
  [[nodiscard]] bool is_watched(PageNumber page) const { return watched_pages_.contains(page); }

  Result<vmm::WatchVerdict> look_at_instruction(VcpuId vcpu);
  Result<vmm::WatchVerdict> carry_out(VcpuId vcpu, const NextInstruction& next);
  Result<vmm::WatchVerdict> let_run(VcpuId vcpu);
  Result<vmm::WatchVerdict> look_at_mmio(VcpuId vcpu);
  Result<bool> answer_part(VcpuId vcpu);
  // Leaves an exit to the machine.
  Result<vmm::WatchVerdict> hand_over(VcpuId vcpu, vmm::ExitKind exit);
  Result<std::vector<MemoryAccess>> accesses_of(VcpuId vcpu, std::span<const x86::DataTouch> touches);
  [[nodiscard]] bool waits(const x86::CpuState& state, const x86::LinearMemory& memory);
  Result<MemoryAccess> emulated_access(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write);
  [[nodiscard]] uint64_t value_at(VcpuId vcpu, Gpa gpa, uint64_t bytes) const;

  Timeline& timeline_;
  vmm::Machine& machine_;
  AccessListener& listener_;
  const std::vector<PageNumber> pages_;
  std::unordered_set<PageNumber> watched_pages_;
  std::vector<Watched> watched_;  // of each vCPU
  std::map<Gva, bool> waits_;     // what is known of instructions that load
};

}  // namespace reprise::replay
