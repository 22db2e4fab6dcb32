#include "vmm/fault_resolver.h"

#include <algorithm>

#include "base/time.h"
#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"

namespace reprise::vmm {
namespace {

// The host may take a mapping away as often as it likes, but not without end at one instruction.
constexpr unsigned kHostRetries = 100;

}  // namespace

Result<x86::AccessSet> FaultResolver::touched_pages(const kvm_regs& regs, const kvm_sregs& sregs) const {
  const x86::CpuState state = cpu_state(regs, sregs);
  const ViewMemory& memory = context_.memory();
  const x86::AccessOptions& access = context_.parts().access;
  TRY_ASSIGN(const kvm_vcpu_events events, context_.kvm().events());
  // An event on its way into the guest: the fault was in its delivery, not in the instruction at rip.
  if (events.exception.injected != 0 || events.exception.pending != 0)
    return x86::delivery_access(state, memory, access, events.exception.nr);
  if (events.interrupt.injected != 0) return x86::delivery_access(state, memory, access, events.interrupt.nr);
  return x86::decode_access(state, memory, access);
}

std::vector<PageRight> FaultResolver::missing(const x86::AccessSet& set) const {
  std::vector<PageRight> needed;
  const ept::View& view = context_.memory().view();
  for (const auto& access : set.pages())
    if (access.page.raw < view.ram_pages() && !view.allows(access.page, access.right))
      needed.push_back({access.page, access.right});
  return needed;
}

Result<Flow> FaultResolver::resolve_fault(bool emulator_gave_up) {
  VcpuStatistics& statistics = context_.statistics();
  TRY_ASSIGN(const kvm_regs regs, context_.kvm().registers());
  TRY_ASSIGN(const kvm_sregs sregs, context_.kvm().special_registers());
  const uint64_t start = monotonic_ns();
  auto set = touched_pages(regs, sregs);
  statistics.decode_ns += monotonic_ns() - start;
  if (!set) {
    if (set.error().code != ErrorCode::kGuest) return tl::unexpected(set.error());
    TRY(context_.guest_error(set.error().message));
    return Flow::kGo;
  }
  // KVM's emulator gives up where it cannot read the instruction itself. If that is because the host took the
  // code page away, each page that the instruction lacks would else have come as an access of its own.
  if (emulator_gave_up) {
    TRY_ASSIGN(const bool lost, map_lost(*set));
    if (lost && count_retry(regs) <= kHostRetries) {
      ++statistics.host_faults;
      context_.stand(BetweenPositions{});
      return Flow::kGo;
    }
  }
  auto needed = missing(*set);
  if (needed.empty()) return nothing_missing(*set, regs, emulator_gave_up);
  ++statistics.faults;
  context_.count_stop();
  const uint64_t here = digest_registers(regs, 0);
  const bool again = faulting() == here;
  TRY(context_.end_stop());
  faulting_ = Faulting{here, context_.completed_stops()};
  return take_missing(std::move(needed), again);
}

unsigned FaultResolver::count_retry(const kvm_regs& regs) {
  const uint64_t here = digest_registers(regs, 0);
  if (!retries_.has_value() || retries_->registers != here ||
      retries_->completed_stops != context_.completed_stops())
    retries_ = Retries{here, context_.completed_stops(), 0};
  return ++retries_->count;
}

// The view grants everything: the host took a mapping away, which an emulator cannot do without either. No
// event. Or the guest does what no retry helps: it needs memory that is not there, or an instruction that the
// emulator does not know.
Result<Flow> FaultResolver::nothing_missing(const x86::AccessSet& set, const kvm_regs& regs,
                                            bool emulator_gave_up) {
  if (count_retry(regs) > kHostRetries) {
    if (set.complete && !emulator_gave_up)
      return fail(
          ErrorCode::kHost,
          "vCPU {}: the host took guest memory away {} times while the instruction at rip {:#x} needed it, "
          "and nothing of it was missing; give the host more memory, or the guest less",
          context_.parts().id.raw, kHostRetries, regs.rip);
    TRY(context_.guest_error(fmt::format(
        "rip {:#x}: KVM cannot execute the instruction, and no page that it needs is missing", regs.rip)));
    return Flow::kGo;
  }
  ++context_.statistics().host_faults;
  ept::View& view = context_.memory().view();
  for (const auto& access : set.pages())
    if (access.page.raw < view.ram_pages()) TRY(view.refresh(access.page));
  // Where this was depends on the host: no position is here, or behind it up to the next stop.
  context_.stand(BetweenPositions{});
  return Flow::kGo;
}

Status FaultResolver::prepare(const x86::AccessSet& set) {
  ept::View& view = context_.memory().view();
  for (const auto& access : set.pages()) TRY(view.prepare(access.page));
  return {};
}

Result<bool> FaultResolver::map_lost(const x86::AccessSet& set) {
  ept::View& view = context_.memory().view();
  bool lost = false;
  for (const auto& access : set.pages()) {
    if (!view.is_lost(access.page)) continue;
    lost = true;
    TRY(view.refresh(access.page));
  }
  return lost;
}

bool FaultResolver::is_reclaimed(const kvm_run& run) const {
  const ept::View& view = context_.memory().view();
  const PageNumber page = page_of(Gpa(run.mmio.phys_addr));
  return page.raw < view.ram_pages() &&
         view.allows(page, run.mmio.is_write != 0 ? Right::kWrite : Right::kRead);
}

Result<Flow> FaultResolver::take_missing(std::vector<PageRight> needed, bool again) {
  TRY_ASSIGN(const Flow flow, context_.acquire(needed, again));
  // Progress: straight back into the guest; the pages can be lost only after the instruction has retired.
  context_.stand(flow == Flow::kLater ? AtFault{std::move(needed)} : AtFault{});
  return flow;
}

Result<Flow> FaultResolver::answer_ram_access(kvm_run& run) {
  ViewMemory& memory = context_.memory();
  const Gpa gpa(run.mmio.phys_addr);
  const bool is_write = run.mmio.is_write != 0;
  if (is_reclaimed(run)) {
    ++context_.statistics().host_faults;
    TRY(memory.view().refresh(page_of(gpa)));
  } else {
    ++context_.statistics().faults;
  }
  // As often as an instruction that is entered again would fault: chaos grants reading before writing.
  const PageRight need{page_of(gpa), is_write ? Right::kWrite : Right::kRead};
  for (bool again = false; !context_.holds(need); again = true) TRY_GO(context_.acquire({&need, 1}, again));
  const std::span<uint8_t> data(run.mmio.data, std::min<size_t>(run.mmio.len, sizeof run.mmio.data));
  bool caught = false;
  if (const auto& watched = context_.watch().access) {
    TRY_ASSIGN(caught, watched(gpa, data.size(), is_write));
  }
  if (!(is_write ? memory.write(gpa, data) : memory.read(gpa, data)))
    TRY(context_.guest_error(fmt::format("an access across pages at guest-physical address {:#x}", gpa.raw)));
  return caught ? Flow::kCaught : Flow::kGo;
}

// KVM's emulator reads some operands again after they were given to it (lgdt, lidt). If the host takes the
// page away in between, it leaves the instruction undone and does not say so: no register has changed. A jump
// to itself looks the same; once more changes nothing. Found on software-backed KVM.
Result<std::optional<ExitKind>> FaultResolver::complete_ram_read() {
  KvmVcpu& kvm = context_.kvm();
  TRY_ASSIGN(const kvm_regs before, kvm.registers());
  TRY_ASSIGN(const auto next_part, kvm.complete());
  if (next_part.has_value()) return next_part;
  TRY_ASSIGN(const kvm_regs after, kvm.registers());
  if (digest_registers(before, 0) != digest_registers(after, 0)) return next_part;
  TRY_ASSIGN(const auto exit, step_undone(after));
  return exit == ExitKind::kDebug ? std::nullopt : std::optional(exit);
}

Result<ExitKind> FaultResolver::step_undone(const kvm_regs& regs) {
  KvmVcpu& kvm = context_.kvm();
  for (unsigned tries = 0; tries < kHostRetries; ++tries) {
    TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
    TRY_ASSIGN(const auto set, touched_pages(regs, sregs));
    TRY(map_lost(set));
    // Who wants the vCPU out of the guest gets it behind this instruction.
    const bool requested = kvm.forced_exit().is_requested();
    kvm.forced_exit().allow();
    TRY_ASSIGN(const ExitKind exit, kvm.try_step());
    if (requested) kvm.forced_exit().request();
    if (kvm.forced_exit().given_up())
      return fail(ErrorCode::kGuest, "vCPU {} was given up while the host took away the memory that it reads",
                  context_.parts().id.raw);
    if (exit != ExitKind::kFault && exit != ExitKind::kInternalError && exit != ExitKind::kInterrupted)
      return exit;
    ++context_.statistics().host_faults;
  }
  return fail(ErrorCode::kHost,
              "vCPU {}: the host took guest memory away {} times while the instruction at "
              "rip {:#x} needed it; give the host more memory, or the guest less",
              context_.parts().id.raw, kHostRetries, regs.rip);
}

std::optional<uint64_t> FaultResolver::faulting() const {
  if (!faulting_.has_value() || faulting_->completed_stops != context_.completed_stops()) return std::nullopt;
  return faulting_->registers;
}

// How many stops were completed is counted anew in each session.
void FaultResolver::visit(StateVisitor& visitor) {
  std::optional<uint64_t> registers = faulting();
  visitor("faulting", registers);
  faulting_.reset();
  if (registers.has_value()) faulting_ = Faulting{*registers, context_.completed_stops()};
  retries_.reset();
}

}  // namespace reprise::vmm
