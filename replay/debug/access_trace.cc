#include "replay/debug/access_trace.h"

#include <algorithm>
#include <cstring>

#include "vmm/device/irq/local_apic.h"
#include "vmm/device/irq/local_apic_registers.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"
#include "x86/waiting_load.h"

namespace reprise::replay {
namespace {

using vmm::WatchVerdict;

bool is_locked(const x86::Instruction& instruction) {
  if ((instruction.decoded.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0) return true;
  // It locks whether it says so or not. Source: Intel SDM vol. 2, XCHG.
  return instruction.mnemonic() == ZYDIS_MNEMONIC_XCHG;
}

bool sends_message(const kvm_run& run) {
  return run.mmio.is_write != 0 && run.mmio.phys_addr == vmm::kLocalApicBase + vmm::apic::kCommandLow;
}

}  // namespace

AccessTrace::AccessTrace(Timeline& timeline, std::vector<PageNumber> pages, AccessListener& listener)
    : timeline_(timeline),
      machine_(timeline.machine()),
      listener_(listener),
      pages_(std::move(pages)),
      watched_pages_(pages_.begin(), pages_.end()),
      watched_(machine_.vcpus()) {}

AccessTrace::~AccessTrace() {
  for (VcpuId vcpu; vcpu.raw < machine_.vcpus(); ++vcpu) (void)open(vcpu);
}

std::vector<PageNumber> AccessTrace::all_pages(vmm::Machine& machine) {
  std::vector<PageNumber> pages;
  for (PageNumber page; page.raw < machine.memory().pages(); ++page)
    if (machine.memory().layout().is_ram(address_of(page)) && !machine.view(VcpuId(0)).is_exempt(page))
      pages.push_back(page);
  return pages;
}

// --- what is restricted ---

Status AccessTrace::restrict(VcpuId vcpu, PageNumber page) {
  Watched& watched = watched_[vcpu.raw];
  const Right left = listener_.unseen(vcpu, page);
  const auto known = watched.left.find(page);
  const Right was = known == watched.left.end() ? Right::kWrite : known->second;
  if (left == was) return {};
  if (left == Right::kWrite) {
    watched.left.erase(page);
    return machine_.view(vcpu).reveal(page);
  }
  watched.left[page] = left;
  return machine_.view(vcpu).restrict(page, left);
}

Status AccessTrace::reveal(VcpuId vcpu, PageNumber page) {
  if (watched_[vcpu.raw].left.erase(page) != 0) TRY(machine_.view(vcpu).reveal(page));
  return {};
}

Status AccessTrace::renew(VcpuId vcpu) {
  watched_[vcpu.raw].is_open = false;
  for (const PageNumber page : pages_) TRY(restrict(vcpu, page));
  return {};
}

Status AccessTrace::open(VcpuId vcpu) {
  Watched& watched = watched_[vcpu.raw];
  for (const auto& [page, left] : watched.left) TRY(machine_.view(vcpu).reveal(page));
  watched.left.clear();
  watched.is_open = true;
  return {};
}

bool AccessTrace::is_restricted(VcpuId vcpu, PageNumber page, Right needed) const {
  const auto left = watched_[vcpu.raw].left.find(page);
  return left != watched_[vcpu.raw].left.end() && left->second < needed;
}

Status AccessTrace::enter(VcpuId vcpu) {
  listener_.enters(vcpu);
  Watched& watched = watched_[vcpu.raw];
  if (watched.stays_open) {
    watched.stays_open = false;
    return {};
  }
  return watched.is_open ? renew(vcpu) : Status();
}

// --- exits ---

Result<WatchVerdict> AccessTrace::look_at(VcpuId vcpu, vmm::ExitKind exit) {
  switch (exit) {
    case vmm::ExitKind::kFault:
    case vmm::ExitKind::kInternalError:
      return look_at_instruction(vcpu);
    case vmm::ExitKind::kMmio:
      return look_at_mmio(vcpu);
    default:
      return hand_over(vcpu, exit);
  }
}

// KVM's emulator, completing an instruction of the kernel, may come to an access of the next one: it must not
// make an exit there that was not recorded.
Result<WatchVerdict> AccessTrace::hand_over(VcpuId vcpu, vmm::ExitKind exit) {
  if (!vmm::is_completed_by_kvm(exit)) return WatchVerdict::kHandle;
  if (exit == vmm::ExitKind::kMmio && sends_message(machine_.kvm(vcpu).shared()))
    listener_.sends_message(vcpu);
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  if (sregs.ss.dpl != 3) TRY(open(vcpu));
  return WatchVerdict::kHandle;
}

Result<WatchVerdict> AccessTrace::look_at_instruction(VcpuId vcpu) {
  ept::View& view = machine_.view(vcpu);
  TRY_ASSIGN(const auto next, decode_next(machine_, vcpu));
  if (!next.has_value()) return WatchVerdict::kHandle;
  bool restricted = false, missing = false;
  for (const auto& access : next->set.pages()) {
    if (access.page.raw >= view.ram_pages()) continue;
    missing |= !view.allows(access.page, access.right);
    restricted |= is_restricted(vcpu, access.page, access.right);
  }
  if (!restricted) return WatchVerdict::kHandle;
  // Its exit was recorded, and may have been of another kind: where KVM emulates, it can say which page it is
  // only if it can read the instruction.
  if (missing) return let_run(vcpu);
  for (const auto& access : next->set.pages()) TRY(view.prepare(access.page));
  return carry_out(vcpu, *next);
}

Result<WatchVerdict> AccessTrace::carry_out(VcpuId vcpu, const NextInstruction& next) {
  auto touches = next.touches;
  TRY_ASSIGN(auto accesses, accesses_of(vcpu, touches));
  for (const auto& needed : next.set.pages()) {
    const bool is_data = std::ranges::any_of(
        accesses, [&](const MemoryAccess& access) { return page_of(access.start) == needed.page; });
    if (next.is_instruction && !is_data && is_restricted(vcpu, needed.page, needed.right))
      listener_.is_no_data(needed.page);
    TRY(reveal(vcpu, needed.page));
  }
  TRY_ASSIGN(const kvm_regs before, machine_.kvm(vcpu).registers());
  bool done = false;
  if (next.is_instruction) {
    TRY_ASSIGN(done, carry_out_next(machine_, vcpu));
  }
  TRY_ASSIGN(const kvm_regs after, machine_.kvm(vcpu).registers());
  if (std::ranges::any_of(touches, &x86::DataTouch::repeats)) {
    extend_repeated(touches, before, after);
    TRY_ASSIGN(accesses, accesses_of(vcpu, touches));
  }
  for (MemoryAccess& access : accesses) {
    access.rip = Gva(before.rip);
    access.after = value_at(vcpu, access.start, access.bytes);
    listener_.accessed(access);
  }
  if (done) {
    for (const auto& needed : next.set.pages())
      if (is_watched(needed.page)) TRY(restrict(vcpu, needed.page));
    return WatchVerdict::kDone;
  }
  if (next.is_instruction) listener_.lost_sight(vcpu);
  return let_run(vcpu);
}

// It is entered with all pages there, and looked at again from its next exit on.
Result<WatchVerdict> AccessTrace::let_run(VcpuId vcpu) {
  TRY(open(vcpu));
  watched_[vcpu.raw].stays_open = true;
  return WatchVerdict::kDone;
}

// Where KVM emulates kernel code, it says what is accessed, and wants to be answered.
Result<WatchVerdict> AccessTrace::look_at_mmio(VcpuId vcpu) {
  vmm::KvmVcpu& kvm = machine_.kvm(vcpu);
  TRY_ASSIGN(const kvm_regs before, kvm.registers());
  for (;;) {
    TRY_ASSIGN(const bool ours, answer_part(vcpu));
    if (!ours) return hand_over(vcpu, vmm::ExitKind::kMmio);
    TRY_ASSIGN(const auto part, kvm.complete());
    if (part.has_value() && *part == vmm::ExitKind::kMmio) continue;
    if (part.has_value())
      return fail(ErrorCode::kHost,
                  "vCPU {}: KVM makes another kind of exit in the middle of the instruction at {:#x}, whose "
                  "memory is watched",
                  vcpu.raw, before.rip);
    break;
  }
  TRY_ASSIGN(const kvm_regs after, kvm.registers());
  if (after.rip != before.rip || after.rcx != before.rcx) return WatchVerdict::kDone;
  // The emulator has forgotten what it read, and would read it again for ever (far jumps).
  return let_run(vcpu);
}

// Whether the exit is about a page that is restricted, and then answered.
Result<bool> AccessTrace::answer_part(VcpuId vcpu) {
  auto& mmio = machine_.kvm(vcpu).shared().mmio;
  const Gpa gpa(mmio.phys_addr);
  const bool writes = mmio.is_write != 0;
  const Right right = writes ? Right::kWrite : Right::kRead;
  const vmm::WholeMemory memory(machine_, vcpu);
  uint8_t* const byte = memory.writable(gpa, mmio.len);
  if (byte == nullptr || !machine_.view(vcpu).allows(page_of(gpa), right) ||
      !is_restricted(vcpu, page_of(gpa), right))
    return false;
  TRY_ASSIGN(MemoryAccess access, emulated_access(vcpu, gpa, mmio.len, writes));
  if (writes)
    std::copy_n(mmio.data, mmio.len, byte);
  else
    std::copy_n(byte, mmio.len, mmio.data);
  access.after = value_at(vcpu, gpa, mmio.len);
  listener_.accessed(access);
  TRY(reveal(vcpu, page_of(gpa)));
  TRY(restrict(vcpu, page_of(gpa)));
  return true;
}

Result<bool> AccessTrace::catches_access(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write) {
  if (!is_watched(page_of(gpa))) return false;
  const Right right = is_write ? Right::kWrite : Right::kRead;
  if (listener_.unseen(vcpu, page_of(gpa)) < right) {
    TRY_ASSIGN(MemoryAccess access, emulated_access(vcpu, gpa, bytes, is_write));
    if (is_write)
      std::memcpy(&access.after, machine_.kvm(vcpu).shared().mmio.data, std::min<size_t>(bytes, 8));
    listener_.accessed(access);
  }
  // KVM may read it once more to finish the instruction, and would make another exit of it.
  TRY(open(vcpu));
  return false;
}

// --- what is accessed ---

uint64_t AccessTrace::value_at(VcpuId vcpu, Gpa gpa, uint64_t bytes) const {
  const size_t part = std::min<uint64_t>(bytes, 8);
  uint64_t value = 0;
  if (const uint8_t* byte = machine_.byte_at(vcpu, gpa, part)) std::memcpy(&value, byte, part);
  return value;
}

bool AccessTrace::waits(const x86::CpuState& state, const x86::LinearMemory& memory) {
  const auto [known, is_new] = waits_.emplace(Gva(state.rip), false);
  if (is_new) known->second = x86::is_waiting_load(state, memory);
  return known->second;
}

Result<std::vector<MemoryAccess>> AccessTrace::accesses_of(VcpuId vcpu,
                                                           std::span<const x86::DataTouch> touches) {
  std::vector<MemoryAccess> accesses;
  TRY_ASSIGN(const kvm_regs regs, machine_.kvm(vcpu).registers());
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  const x86::CpuState state = vmm::cpu_state(regs, sregs);
  x86::Instruction instruction;
  const bool locked = x86::fetch(state, memory, instruction) && is_locked(instruction);
  for (const auto& touch : touches) {
    for (uint64_t done = 0; done < touch.bytes;) {
      const Gva at(touch.linear.raw + done);
      const uint64_t part = std::min(touch.bytes - done, kPageSize - at.raw % kPageSize);
      done += part;
      const auto gpa = memory.translate(at);
      if (!gpa.has_value() || !is_watched(page_of(*gpa))) continue;
      MemoryAccess access{.vcpu = vcpu, .mark = timeline_.now().without_steps(), .linear = at, .start = *gpa};
      access.bytes = static_cast<uint32_t>(part);
      access.reads = touch.reads;
      access.writes = touch.writes;
      access.before = value_at(vcpu, *gpa, part);
      access.locked = locked && touch.writes;
      access.waits = touch.reads && !touch.writes && waits(state, memory);
      accesses.push_back(access);
    }
  }
  return accesses;
}

Result<MemoryAccess> AccessTrace::emulated_access(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write) {
  TRY_ASSIGN(const kvm_regs regs, machine_.kvm(vcpu).registers());
  MemoryAccess access{
      .vcpu = vcpu, .mark = timeline_.now().without_steps(), .rip = Gva(regs.rip), .start = gpa};
  access.rip_is_behind = is_write;
  access.bytes = static_cast<uint32_t>(bytes);
  access.reads = !is_write;
  access.writes = is_write;
  access.before = access.after = value_at(vcpu, gpa, bytes);
  if (is_write) return access;
  TRY_ASSIGN(const kvm_sregs sregs, machine_.kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine_, vcpu);
  access.waits = waits(vmm::cpu_state(regs, sregs), x86::LinearMemory(vmm::paging_of(sregs), physical));
  return access;
}

}  // namespace reprise::replay
