#include "analysis/race_locator.h"

#include <algorithm>
#include <cstring>

#include "replay/debug/next_instruction.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::analysis {
namespace {

// From one safepoint to the next there are some dozen; a kernel that is emulated has none.
constexpr uint64_t kMostSteps = 4000;
constexpr size_t kMostFrames = 16;

// Where the instruction that is next accesses what is sought; nothing: it does not.
Result<std::optional<Gva>> linear_of(vmm::Machine& machine, const replay::MemoryAccess& access) {
  TRY_ASSIGN(const auto next, replay::decode_next(machine, access.vcpu));
  if (!next.has_value() || !next->is_instruction) return std::optional<Gva>();
  TRY_ASSIGN(const kvm_regs regs, machine.kvm(access.vcpu).registers());
  const Gva rip(regs.rip + (access.rip_is_behind ? next->set.instruction_length : 0));
  if (rip != access.rip) return std::optional<Gva>();
  TRY_ASSIGN(const kvm_sregs sregs, machine.kvm(access.vcpu).special_registers());
  const vmm::WholeMemory physical(machine, access.vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  for (const auto& touch : next->touches) {
    if (access.writes ? !touch.writes : !touch.reads) continue;
    const auto gpa = memory.translate(touch.linear);
    if (gpa.has_value() && *gpa <= access.start && access.start < *gpa + touch.bytes)
      return std::optional(touch.linear + (access.start - *gpa));
  }
  return std::optional<Gva>();
}

Result<std::vector<Gva>> return_addresses(vmm::Machine& machine, VcpuId vcpu) {
  TRY_ASSIGN(const kvm_regs regs, machine.kvm(vcpu).registers());
  TRY_ASSIGN(const kvm_sregs sregs, machine.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  std::vector<Gva> found;
  for (uint64_t frame = regs.rbp; found.size() < kMostFrames && frame % 8 == 0 && frame != 0;) {
    std::array<uint64_t, 2> words{};  // the frame before, the return address
    if (memory.read(Gva(frame), {reinterpret_cast<uint8_t*>(words.data()), sizeof words}) < sizeof words)
      break;
    if (!memory.translate(Gva(words[1]), {.fetch = true, .user = sregs.ss.dpl == 3}).has_value()) break;
    found.emplace_back(words[1]);
    if (words[0] <= frame) break;
    frame = words[0];
  }
  return found;
}

}  // namespace

Result<std::optional<LocatedAccess>> locate(replay::Timeline& timeline, const replay::MemoryAccess& access,
                                            uint64_t nth) {
  TRY(timeline.seek(access.mark));
  vmm::Machine& machine = timeline.machine();
  for (uint64_t steps = 0; steps < kMostSteps; ++steps) {
    if (timeline.at_end() || timeline.turn() != access.vcpu || timeline.now().without_steps() != access.mark)
      break;
    TRY_ASSIGN(const auto linear, linear_of(machine, access));
    if (linear.has_value() && nth-- == 0) {
      LocatedAccess found{.mark = timeline.now(), .linear = *linear, .return_addresses = {}};
      TRY_ASSIGN(const kvm_regs regs, machine.kvm(access.vcpu).registers());
      found.rip = Gva(regs.rip);
      TRY_ASSIGN(found.return_addresses, return_addresses(machine, access.vcpu));
      return std::optional(std::move(found));
    }
    TRY(timeline.step());
  }
  return std::optional<LocatedAccess>();
}

}  // namespace reprise::analysis
