#include "replay/debug/watched_memory.h"

#include <algorithm>

#include "replay/debug/next_instruction.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::replay {
namespace {

bool looks_at(const WatchedRange& range, bool reads, bool writes) {
  return (range.reads && reads) || (range.writes && writes);
}

// Of a part on one page. Nothing: they do not meet.
std::optional<uint64_t> offset_of(const WatchedRange& range, Gpa start, uint64_t bytes) {
  const Gpa first = std::max(range.start, start);
  if (first >= range.start + range.bytes || first >= start + bytes) return std::nullopt;
  return first - range.start;
}

}  // namespace

Result<std::optional<TouchedRange>> find_touched(vmm::Machine& machine, VcpuId vcpu,
                                                 std::span<const x86::DataTouch> touches,
                                                 std::span<const WatchedRange> ranges) {
  std::optional<TouchedRange> found;
  TRY_ASSIGN(const kvm_sregs sregs, machine.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  for (const auto& touch : touches) {
    for (uint64_t done = 0; done < touch.bytes;) {
      const Gva at(touch.linear.raw + done);
      const uint64_t part = std::min(touch.bytes - done, kPageSize - at.raw % kPageSize);
      done += part;
      const auto gpa = memory.translate(at);
      if (!gpa.has_value()) continue;
      for (size_t i = 0; i < ranges.size(); ++i) {
        if (!looks_at(ranges[i], touch.reads, touch.writes)) continue;
        if (const auto offset = offset_of(ranges[i], *gpa, part))
          return std::optional(TouchedRange{i, *offset});
      }
    }
  }
  return found;
}

std::optional<TouchedRange> find_touched(std::span<const vmm::PhysicalAccess> accesses,
                                         std::span<const WatchedRange> ranges) {
  for (const vmm::PhysicalAccess& access : accesses) {
    for (size_t i = 0; i < ranges.size(); ++i) {
      if (!looks_at(ranges[i], !access.writes, access.writes)) continue;
      if (const auto offset = offset_of(ranges[i], access.start, access.bytes))
        return TouchedRange{i, *offset};
    }
  }
  return std::nullopt;
}

WatchedMemory::WatchedMemory(vmm::Machine& machine, std::vector<WatchedRange> ranges)
    : machine_(machine), ranges_(std::move(ranges)), revealed_(machine.vcpus()) {
  for (const auto& range : ranges_) {
    for (PageNumber page = page_of(range.start); page <= page_of(range.start + (range.bytes - 1));
         page = page + 1) {
      const Right left = range.reads ? Right::kNone : Right::kRead;
      const auto [at, is_new] = left_.emplace(page, left);
      if (!is_new) at->second = std::min(at->second, left);
    }
  }
}

Status WatchedMemory::check(vmm::Machine& machine, std::span<const WatchedRange> ranges) {
  for (const auto& range : ranges) {
    for (PageNumber page = page_of(range.start); page <= page_of(range.start + (range.bytes - 1));
         page = page + 1) {
      if (page.raw >= machine.memory().pages())
        return fail(ErrorCode::kUsage, "{:#x} is no RAM: it cannot be watched", range.start.raw);
      if (machine.view(VcpuId(0)).is_exempt(page))
        return fail(ErrorCode::kUsage,
                    "{:#x} is in a page that each vCPU has its own of: it cannot be watched",
                    range.start.raw);
    }
  }
  return {};
}

Result<std::unique_ptr<WatchedMemory>> WatchedMemory::watch(vmm::Machine& machine,
                                                            std::vector<WatchedRange> ranges) {
  TRY(check(machine, ranges));
  std::unique_ptr<WatchedMemory> watched(new WatchedMemory(machine, std::move(ranges)));
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) TRY(watched->restrict(vcpu));
  machine.memory().device_accesses().list(!watched->ranges_.empty());
  return watched;
}

WatchedMemory::~WatchedMemory() {
  machine_.memory().device_accesses().list(false);
  for (VcpuId vcpu; vcpu.raw < machine_.vcpus(); ++vcpu) (void)reveal(vcpu);
}

Status WatchedMemory::restrict(VcpuId vcpu) {
  for (const auto& [page, left] : left_) TRY(machine_.view(vcpu).restrict(page, left));
  return {};
}

Status WatchedMemory::reveal(VcpuId vcpu) {
  for (const auto& [page, left] : left_) TRY(machine_.view(vcpu).reveal(page));
  return {};
}

bool WatchedMemory::is_restricted(PageNumber page, Right needed) const {
  const auto left = left_.find(page);
  return left != left_.end() && left->second < needed;
}

Result<bool> WatchedMemory::is_touched(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write) {
  if (!left_.contains(page_of(gpa))) return false;
  // KVM may read it once more to finish the instruction, and would make another exit of it.
  TRY(reveal(vcpu));
  revealed_[vcpu.raw] = true;
  return touches(gpa, bytes, is_write);
}

bool WatchedMemory::is_touched_by_devices() {
  return find_touched(machine_.memory().device_accesses().take(), ranges_).has_value();
}

Status WatchedMemory::enter(VcpuId vcpu) {
  if (!revealed_[vcpu.raw]) return {};
  revealed_[vcpu.raw] = false;
  return restrict(vcpu);
}

bool WatchedMemory::touches(Gpa gpa, uint64_t bytes, bool is_write) const {
  return std::ranges::any_of(ranges_, [&](const WatchedRange& range) {
    return looks_at(range, !is_write, is_write) && offset_of(range, gpa, bytes).has_value();
  });
}

Result<vmm::Vcpu::Verdict> WatchedMemory::look_at(VcpuId vcpu, vmm::ExitKind exit) {
  switch (exit) {
    case vmm::ExitKind::kFault:
    case vmm::ExitKind::kInternalError:
      return look_at_instruction(vcpu);
    case vmm::ExitKind::kMmio:
      return look_at_mmio(vcpu);
    default:
      return vmm::Vcpu::Verdict::kHandle;
  }
}

Result<vmm::Vcpu::Verdict> WatchedMemory::look_at_instruction(VcpuId vcpu) {
  const ept::View& view = machine_.view(vcpu);
  TRY_ASSIGN(const auto next, decode_next(machine_, vcpu));
  if (!next.has_value()) return vmm::Vcpu::Verdict::kHandle;
  bool restricted = false;
  for (const auto& access : next->set.pages()) {
    if (access.page.raw >= view.ram_pages()) continue;
    if (!view.allows(access.page, access.right)) return vmm::Vcpu::Verdict::kHandle;
    restricted |= is_restricted(access.page, access.right);
  }
  if (!restricted) return vmm::Vcpu::Verdict::kHandle;
  TRY_ASSIGN(const auto touched, find_touched(machine_, vcpu, next->touches, ranges_));
  if (touched.has_value() || !next->is_instruction) return vmm::Vcpu::Verdict::kCaught;
  for (const auto& access : next->set.pages()) TRY(machine_.view(vcpu).prepare(access.page));
  return step_across(vcpu);
}

Result<vmm::Vcpu::Verdict> WatchedMemory::step_across(VcpuId vcpu) {
  TRY(reveal(vcpu));
  TRY_ASSIGN(const bool stepped, trace_next(machine_, vcpu));
  TRY(restrict(vcpu));
  return stepped ? vmm::Vcpu::Verdict::kDone : vmm::Vcpu::Verdict::kCaught;
}

bool WatchedMemory::is_restricted_access(VcpuId vcpu, vmm::ExitKind exit) {
  if (exit != vmm::ExitKind::kMmio) return false;
  const auto& mmio = machine_.kvm(vcpu).shared().mmio;
  const PageNumber page = page_of(Gpa(mmio.phys_addr));
  const Right right = mmio.is_write != 0 ? Right::kWrite : Right::kRead;
  return is_restricted(page, right) && machine_.view(vcpu).allows(page, right);
}

// Where KVM emulates kernel code, it says what is accessed, and wants to be answered.
Result<vmm::Vcpu::Verdict> WatchedMemory::look_at_mmio(VcpuId vcpu) {
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  const vmm::WholeMemory memory(machine_, vcpu);
  TRY_ASSIGN(const kvm_regs before, kvm.registers());
  for (bool first = true;; first = false) {
    auto& mmio = kvm.shared().mmio;
    const Gpa gpa(mmio.phys_addr);
    const bool writes = mmio.is_write != 0;
    uint8_t* const byte = memory.writable(gpa, mmio.len);
    const bool ours = byte != nullptr && is_restricted_access(vcpu, vmm::ExitKind::kMmio);
    // In the middle of an instruction nobody can go back to its handler: caught, and then found out by a
    // step.
    if (!ours) return first ? vmm::Vcpu::Verdict::kHandle : vmm::Vcpu::Verdict::kCaught;
    if (touches(gpa, mmio.len, writes)) return vmm::Vcpu::Verdict::kCaught;
    if (writes)
      std::copy_n(mmio.data, mmio.len, byte);
    else
      std::copy_n(byte, mmio.len, mmio.data);
    TRY_ASSIGN(const auto next, kvm.complete());
    if (!next.has_value()) {
      // The emulator has forgotten what it read, and would read it again for ever (far jumps).
      TRY_ASSIGN(const kvm_regs after, kvm.registers());
      return after.rip != before.rip || after.rcx != before.rcx ? vmm::Vcpu::Verdict::kDone
                                                                : step_across(vcpu);
    }
    if (*next != vmm::ExitKind::kMmio) return vmm::Vcpu::Verdict::kCaught;
  }
}

}  // namespace reprise::replay
