#include "vmm/vcpu.h"

#include <algorithm>

#include "base/check.h"
#include "base/time.h"
#include "vmm/clock/spin.h"
#include "vmm/kvm/cpu_state.h"
#include "vmm/register_digest.h"
#include "x86/linear_memory.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

// The host may take a mapping away as often as it likes, but not without end at one instruction.
constexpr unsigned kHostRetries = 100;

kvm_segment to_kvm(const SegmentRegister& from) {
  kvm_segment segment{};
  segment.base = from.base;
  segment.limit = from.limit;
  segment.selector = from.selector;
  segment.type = from.type;
  segment.present = 1;
  segment.s = from.code_or_data ? 1 : 0;
  segment.db = from.is_32_bit ? 1 : 0;
  segment.g = from.granular ? 1 : 0;
  segment.l = from.is_64_bit ? 1 : 0;
  return segment;
}

// Registers that no boot protocol mentions and every vCPU starts with. Source: Intel SDM vol. 3, table 9-1.
kvm_sregs initial_sregs(VcpuId id) {
  kvm_sregs sregs{};
  sregs.cr0 = 0x60000010;  // CD, NW, ET
  sregs.apic_base = kLocalApicBase | 0x800 | (id.raw == 0 ? 0x100 : 0);
  sregs.gdt.limit = 0xffff;
  sregs.idt.limit = 0xffff;
  kvm_segment data{};
  data.limit = 0xffff;
  data.type = 3;
  data.present = 1;
  data.s = 1;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cs = data;
  sregs.cs.type = 11;
  sregs.tr.limit = 0xffff;
  sregs.tr.type = 11;
  sregs.tr.present = 1;
  sregs.ldt.limit = 0xffff;
  sregs.ldt.type = 2;
  sregs.ldt.present = 1;
  return sregs;
}

}  // namespace

Status Vcpu::boot(const BootState& state) {
  kvm_sregs sregs = initial_sregs(parts_.id);
  sregs.cr0 = state.cr0;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
  sregs.cs = to_kvm(state.code);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = to_kvm(state.data);
  sregs.tr = to_kvm(state.task);
  sregs.gdt.base = state.gdt.raw;
  sregs.gdt.limit = state.gdt_limit;
  kvm_regs regs{};
  regs.rip = state.entry.raw;
  regs.rbx = state.rbx;
  regs.rsi = state.rsi;
  regs.rflags = state.rflags | 2;
  TRY(parts_.kvm.set_special_registers(sregs));
  return parts_.kvm.set_registers(regs);
}

Status Vcpu::reset() {
  return startup(0xff);
}

Status Vcpu::startup(uint8_t vector) {
  kvm_sregs sregs = initial_sregs(parts_.id);
  sregs.cs.selector = static_cast<uint16_t>(vector << 8);
  sregs.cs.base = static_cast<uint64_t>(vector) << kPageShift;
  kvm_regs regs{};
  regs.rflags = 2;
  TRY(parts_.kvm.set_special_registers(sregs));
  halted_ = false;
  interrupts_enabled_ = false;
  return parts_.kvm.set_registers(regs);
}

void Vcpu::abandon() {
  abandoned_.store(true, std::memory_order_seq_cst);
  std::atomic_ref<uint8_t>(parts_.kvm.shared().immediate_exit).store(1, std::memory_order_seq_cst);
}

Status Vcpu::run() {
  parts_.clock.attach();
  for (;;) {
    TRY_ASSIGN(const Advance advanced, advance());
    REPRISE_CHECK(advanced != Advance::kLater);
    if (advanced == Advance::kLeft) return {};
  }
}

Result<Vcpu::Advance> Vcpu::advance() {
  later_ = caught_ = false;
  if (!leaving_) {
    if (faulting_for_.has_value())
      TRY(take_missing(std::vector(*faulting_for_), true));
    else if (unfinished_.has_value())
      TRY(finish_exit());
    else
      TRY(go_on());
  }
  if (later_) return Advance::kLater;
  if (caught_) return Advance::kCaught;
  if (!leaving_) return Advance::kOn;
  if (!left_) TRY(leave());
  left_ = true;
  return Advance::kLeft;
}

Status Vcpu::finish_exit() {
  counted_ = true;
  return carry_out(*std::exchange(unfinished_, std::nullopt));
}

Status Vcpu::go_on() {
  TRY_ASSIGN(const bool ready, get_ready());
  if (!ready) return {};
  if (step_until_.has_value()) {
    TRY_ASSIGN(const bool done, step_over());
    if (done) return {};
  }
  return enter();
}

// False: it does not execute now.
Result<bool> Vcpu::get_ready() {
  if (after_ != After::kPosition) return true;
  const uint64_t moment = journal_->moment();
  TRY(take_async());
  if (leaving_ || later_) return false;
  if (must_wait()) {
    TRY(journal_->wait());
    return false;
  }
  TRY(take_turn());
  if (leaving_ || later_) return false;
  later_ = journal_->others_first();
  if (later_ || journal_->moment() != moment) return false;
  TRY(inject());
  return true;
}

// False: not granted; the vCPU leaves, or stands still.
Result<bool> Vcpu::acquire(std::span<const PageRight> needed, bool again) {
  TRY_ASSIGN(const Acquired acquired, journal_->acquire(needed, again));
  leaving_ = acquired == Acquired::kStopping;
  later_ = acquired == Acquired::kLater;
  return acquired == Acquired::kGranted;
}

// A page or token that may be ours already.
Result<bool> Vcpu::acquire(PageNumber page, Right right) {
  if (parts_.memory.view().allows(page, right)) return true;
  const PageRight need{page, right};
  return acquire({&need, 1}, false);
}

Status Vcpu::take_async() {
  journal_->arrive(position());
  for (;;) {
    TRY(tell_board());
    if (leaving_ || later_) return {};
    TRY_ASSIGN(const auto event, journal_->next_async());
    if (!event.has_value()) return {};
    leaving_ = std::holds_alternative<Leave>(*event);
    later_ = std::holds_alternative<Later>(*event);
    if (leaving_ || later_) return {};
    const auto& message = std::get<log::ApicMessage>(*event);
    if (parts_.board != nullptr && PcBoard::is_for_board(message)) {
      for_board_ = message;
      continue;
    }
    const auto accepted = parts_.apic.accept(message);
    TRY(perform(accepted.effects));
    if (accepted.action == LocalApic::Action::kReset) TRY(reset());
    if (accepted.action == LocalApic::Action::kStartup) TRY(startup(message.vector));
  }
}

// A message for a device waits here for the turn, which all devices go with.
Status Vcpu::tell_board() {
  if (!for_board_.has_value()) return {};
  TRY(take_turn());
  if (leaving_ || later_) return {};
  TRY_ASSIGN(const Effects effects,
             parts_.board->accept(*std::exchange(for_board_, std::nullopt), *journal_));
  return perform(effects);
}

bool Vcpu::must_wait() {
  if (parts_.apic.waiting_for_startup()) return true;
  if (halted_ &&
      ((interrupts_enabled_ && parts_.apic.pending_vector().has_value()) || parts_.apic.nmi_pending()))
    halted_ = false;
  return halted_;
}

// Interrupts go in only where an instruction has just completed and the guest's IF is set: there is no
// interrupt shadow then (an instruction that casts one makes no stop), so hosts that lose the shadow across
// exits cannot make a difference.
Status Vcpu::inject() {
  if (parts_.apic.take_nmi()) return parts_.kvm.nmi();
  if (!interrupts_enabled_ || !parts_.apic.pending_vector().has_value()) return {};
  const auto vector = parts_.apic.acknowledge();
  ++statistics_.interrupts;
  return parts_.kvm.interrupt(*vector);
}

Status Vcpu::take_turn() {
  if (parts_.takes_turns) TRY(acquire(parts_.first_token + kTurnToken, Right::kWrite));
  return {};
}

Status Vcpu::enter() {
  leaving_ = journal_->is_over();
  if (leaving_) return {};
  // An interrupt that waits for IF makes every safepoint a stop until it is in. Both journals do this, so
  // replay agrees. Without safepoints KVM has to say when the guest can take it.
  const bool waiting = parts_.apic.pending_vector().has_value() || parts_.apic.nmi_pending();
  const KickedStop kicked = parts_.clock.kicked_stop();
  parts_.clock.stop_at(waiting && kicked == KickedStop::kAtTick ? Ticks(0) : journal_->next_stop());
  parts_.kvm.shared().request_interrupt_window = waiting && kicked != KickedStop::kAtTick ? 1 : 0;
  if (journal_->kicked()) parts_.clock.stop_at(Ticks(0));
  if (watch_.entry) TRY(watch_.entry());
  in_guest_.store(true, std::memory_order_relaxed);
  auto ran = parts_.kvm.run();
  in_guest_.store(false, std::memory_order_relaxed);
  TRY_ASSIGN(const ExitKind exit, std::move(ran));
  if (watch_.exit) {
    TRY_ASSIGN(const Verdict verdict, watch_.exit(exit));
    caught_ = verdict == Verdict::kCaught;
    if (caught_) unfinished_ = exit;
    if (verdict == Verdict::kDone) after_ = After::kFault;
    if (verdict != Verdict::kHandle) return {};
  }
  if (exit == ExitKind::kInterrupted) return interrupted();
  return carry_out(exit);
}

Status Vcpu::carry_out(ExitKind exit) {
  for (;;) {
    TRY_ASSIGN(const bool needs_completion, handle(exit));
    if (later_ && needs_completion) unfinished_ = exit;
    if (!needs_completion || leaving_ || later_) return {};
    TRY_ASSIGN(const auto next_part, parts_.kvm.complete());
    if (!next_part.has_value()) break;
    exit = *next_part;
    if (watch_.part && watch_.part(exit)) {
      caught_ = true;
      unfinished_ = exit;
      return {};
    }
  }
  return end_stop();
}

Status Vcpu::interrupted() {
  if (abandoned_.load(std::memory_order_seq_cst))
    return fail(ErrorCode::kGuest,
                "vCPU {} came to no stop although the machine was stopping: the guest runs code that was not "
                "compiled with safepoints and "
                "makes no system call; the recording ends before that",
                parts_.id.raw);
  switch (parts_.clock.kicked_stop()) {
    case KickedStop::kAtTick:
      after_ = After::kNowhere;
      return {};  // somewhere behind its last position
    case KickedStop::kAnywhere: {
      after_ = After::kPosition;
      TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
      interrupts_enabled_ = (regs.rflags & x86::kInterruptFlag) != 0;
      return {};
    }
    case KickedStop::kAtStop:
      break;
  }
  after_ = After::kNowhere;
  TRY_ASSIGN(auto spin, journal_->next_spin());
  if (spin.has_value()) {
    TRY_ASSIGN(const bool there, step_into_spin(parts_.kvm, parts_.memory, *spin));
    if (!there) return {};
  } else {
    if (!journal_->may_stop_spin()) return {};
    TRY_ASSIGN(spin, find_spin(parts_.kvm, parts_.memory));
    if (!spin.has_value()) return {};
  }
  journal_->arrive(position());  // there may have been ticks since
  TRY(journal_->stopped_spin(*spin));
  ++statistics_.spins;
  count_stop();
  return end_stop();
}

// True: KVM has to finish the instruction, then the stop is complete.
Result<bool> Vcpu::handle(ExitKind exit) {
  const kvm_run& run = parts_.kvm.shared();
  switch (exit) {
    case ExitKind::kPortIo:
      TRY(handle_port());
      return true;
    case ExitKind::kMmio:
      TRY(handle_mmio());
      return true;
    case ExitKind::kHalt:
      TRY(handle_halt());
      return false;
    case ExitKind::kFault:
      TRY(handle_fault(false));
      return false;
    // Hosts that emulate kernel code cannot emulate all of it without the page: locked instructions, for one.
    case ExitKind::kInternalError:
      TRY(handle_fault(true));
      return false;
    case ExitKind::kShutdown:
      TRY(guest_error("triple fault"));
      return false;
    case ExitKind::kInterruptWindow:
      TRY(handle_window());
      return false;
    case ExitKind::kMsrRead:
      TRY(handle_msr(false));
      return true;
    case ExitKind::kMsrWrite:
      TRY(handle_msr(true));
      return true;
    case ExitKind::kTaskPriority:
      count_stop();
      parts_.apic.set_cr8(static_cast<uint8_t>(parts_.kvm.shared().cr8));
      return true;
    case ExitKind::kInterrupted:
      return false;
    case ExitKind::kDebug:
    case ExitKind::kOther:
      break;
  }
  TRY(guest_error(
      fmt::format("an exit that this machine does not know (KVM exit reason {})", run.exit_reason)));
  return false;
}

Status Vcpu::handle_port() {
  count_stop();
  ++statistics_.port_io;
  const auto& io = parts_.kvm.shared().io;
  const bool is_write = io.direction == KVM_EXIT_IO_OUT;
  const unsigned size = io.size;
  const uint16_t port = io.port;
  const auto data = parts_.kvm.port_data();
  if (parts_.patches != nullptr && port >= kRdtscPort && port <= kModulePort)
    return handle_patched(port, data);
  for (size_t offset = 0; offset + size <= data.size(); offset += size)
    TRY(device_access(IoSpace::kPort, port, size, is_write, data.data() + offset));
  return {};
}

bool Vcpu::is_trap(const kvm_run& run) const {
  return parts_.trap.has_value() && run.mmio.is_write != 0 &&
         page_of(Gpa(run.mmio.phys_addr)) == page_of(*parts_.trap);
}

Status Vcpu::handle_mmio() {
  kvm_run& run = parts_.kvm.shared();
  if (is_trap(run)) {
    // Not counted as a stop: where it happens was our choice. The clock says where that is.
    ++statistics_.traps;
    return {};
  }
  count_stop();
  // No page of a PC's is ever missing, and its devices are in a hole of its RAM.
  const bool in_ram = run.mmio.phys_addr < address_of(PageNumber(parts_.memory.view().ram_pages())).raw;
  if (parts_.board == nullptr && in_ram) return ram_access(run);
  ++statistics_.mmio;
  return device_access(IoSpace::kMemory, run.mmio.phys_addr, run.mmio.len, run.mmio.is_write != 0,
                       run.mmio.data);
}

// A host that emulates kernel code shows an access without permission as MMIO at a RAM address. The access is
// answered here, after the page is ours, as the instruction would have made it.
Status Vcpu::ram_access(kvm_run& run) {
  ++statistics_.faults;
  const Gpa gpa(run.mmio.phys_addr);
  // As often as an instruction that is entered again would fault: chaos grants reading before writing.
  const PageRight need{page_of(gpa), run.mmio.is_write != 0 ? Right::kWrite : Right::kRead};
  for (bool again = false; !parts_.memory.view().allows(need.page, need.right); again = true) {
    TRY_ASSIGN(const bool granted, acquire({&need, 1}, again));
    if (!granted) return {};
  }
  const std::span<uint8_t> data(run.mmio.data, std::min<size_t>(run.mmio.len, sizeof run.mmio.data));
  if (watch_.access) {
    TRY_ASSIGN(caught_, watch_.access(gpa, data.size(), run.mmio.is_write != 0));
  }
  const bool done = run.mmio.is_write != 0 ? parts_.memory.write(gpa, data) : parts_.memory.read(gpa, data);
  if (!done)
    return guest_error(fmt::format("an access across pages at guest-physical address {:#x}", gpa.raw));
  return {};
}

Status Vcpu::device_access(IoSpace space, uint64_t address, unsigned bytes, bool is_write, uint8_t* data) {
  const auto target = parts_.io.find(space, address, bytes);
  if (target.has_value() && target->shared.has_value() && !parts_.takes_turns) {
    const PageNumber token = parts_.first_token + (kFirstDeviceToken + target->shared->raw);
    TRY_ASSIGN(const bool granted, acquire(token, Right::kWrite));
    if (!granted) return {};
  }
  uint64_t value = 0;
  if (is_write) {
    std::copy_n(data, std::min(bytes, 8u), reinterpret_cast<uint8_t*>(&value));
    TRY_ASSIGN(const Effects effects, parts_.io.write(space, address, bytes, value, *journal_));
    return perform(effects);
  }
  TRY_ASSIGN(value, parts_.io.read(space, address, bytes, *journal_));
  std::copy_n(reinterpret_cast<const uint8_t*>(&value), std::min(bytes, 8u), data);
  return {};
}

Status Vcpu::perform(const Effects& effects) {
  for (const Effect& effect : parts_.board != nullptr ? parts_.board->route(effects) : effects) {
    if (const auto* stop = std::get_if<StopMachine>(&effect))
      journal_->stop_machine({StopReason::kGuestExit, stop->status, {}});
    else
      journal_->perform(effect);
  }
  return {};
}

Status Vcpu::handle_halt() {
  count_stop();
  ++statistics_.halts;
  halted_ = true;
  return end_stop();
}

// The first instruction boundary at which the guest takes interrupts, counted from the stop at which that was
// asked for: a place that replay comes to by itself. But an emulated SVM forgets, on its way through an exit
// of the host's own, that the instruction after sti is still in sti's shadow, and opens the window before it;
// real processors never do. So that instruction is carried out first.
Status Vcpu::handle_window() {
  if (parts_.clock.kicked_stop() == KickedStop::kAnywhere) {
    after_ = After::kPosition;
    interrupts_enabled_ = true;
    return {};
  }
  TRY(step_over_shadow());
  count_stop();
  ++statistics_.windows;
  return end_stop();
}

Status Vcpu::step_over_shadow() {
  constexpr uint8_t kSti = 0xfb;
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  uint8_t before = 0;
  if (x86::LinearMemory(paging_of(sregs), parts_.memory).read(Gva(regs.rip - 1), {&before, 1}) == 0 ||
      before != kSti)
    return {};
  parts_.kvm.shared().request_interrupt_window = 0;
  return parts_.kvm.step();
}

// Registers that KVM does not know fault, as on a processor that lacks them; time is the journal's.
Status Vcpu::handle_msr(bool is_write) {
  constexpr uint32_t kTimeStampCounter = 0x10;
  count_stop();
  ++statistics_.msrs;
  auto& msr = parts_.kvm.shared().msr;
  msr.error = msr.index == kTimeStampCounter ? 0 : 1;
  faults_ = msr.error != 0;
  if (msr.error != 0 || is_write) return {};
  TRY_ASSIGN(msr.data, journal_->value(log::Source::kTime));
  return {};
}

Result<x86::AccessSet> Vcpu::touched_pages(const kvm_regs& regs, const kvm_sregs& sregs) {
  const x86::CpuState state = cpu_state(regs, sregs);
  TRY_ASSIGN(const kvm_vcpu_events events, parts_.kvm.events());
  // An event on its way into the guest: the fault was in its delivery, not in the instruction at rip.
  if (events.exception.injected != 0 || events.exception.pending != 0)
    return x86::delivery_access(state, parts_.memory, parts_.access, events.exception.nr);
  if (events.interrupt.injected != 0)
    return x86::delivery_access(state, parts_.memory, parts_.access, events.interrupt.nr);
  return x86::decode_access(state, parts_.memory, parts_.access);
}

std::vector<PageRight> Vcpu::missing(const x86::AccessSet& set) const {
  std::vector<PageRight> needed;
  const ept::View& view = parts_.memory.view();
  for (const auto& access : set.pages())
    if (access.page.raw < view.ram_pages() && !view.allows(access.page, access.right))
      needed.push_back({access.page, access.right});
  return needed;
}

Status Vcpu::handle_fault(bool emulator_gave_up) {
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  const uint64_t start = monotonic_ns();
  auto set = touched_pages(regs, sregs);
  statistics_.decode_ns += monotonic_ns() - start;
  if (!set) {
    if (set.error().code == ErrorCode::kGuest) return guest_error(set.error().message);
    return tl::unexpected(set.error());
  }
  const auto needed = missing(*set);
  if (needed.empty()) {
    if (emulator_gave_up || ++host_retries_ > kHostRetries)
      return guest_error(fmt::format(
          "rip {:#x}: KVM cannot execute the instruction, and no page that it needs is missing", regs.rip));
    // The view grants everything: the host took a mapping away. No event.
    ++statistics_.host_faults;
    for (const auto& access : set->pages())
      if (access.page.raw < parts_.memory.view().ram_pages()) TRY(parts_.memory.view().refresh(access.page));
    after_ = After::kFault;
    return {};
  }
  host_retries_ = 0;
  ++statistics_.faults;
  count_stop();
  const uint64_t here = digest_registers(regs, 0);
  const bool again = faulting_ == here;
  TRY(end_stop());
  faulting_ = here;
  return take_missing(needed, again);
}

Status Vcpu::take_missing(std::vector<PageRight> needed, bool again) {
  TRY(acquire(needed, again));
  faulting_for_.reset();
  if (later_) faulting_for_ = std::move(needed);
  // Progress: straight back into the guest; the pages can be lost only after the instruction has retired.
  after_ = After::kFault;
  return {};
}

void Vcpu::count_stop() {
  if (std::exchange(counted_, false)) return;
  ++stops_;
  ++statistics_.stops;
  visible_stops_.store(stops_, std::memory_order_relaxed);
  journal_->arrive(position());
}

// A vCPU that shares page tables with others where the host caches them unseen (shadow paging) would run on
// stale translations. Looked for at every stop: a shared table must be linked before anybody changes it, and
// whoever is told of a change is stopped first.
Status Vcpu::check_tables() {
  if (!parts_.own_tables.has_value()) return {};
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  const auto shared = x86::find_table(paging_of(sregs), parts_.memory, [&](PageNumber page) {
    return !parts_.own_tables->contains(address_of(page));
  });
  if (!shared.has_value()) return {};
  return fail(ErrorCode::kHost,
              "vCPU {} has a page table at {:#x}, which other vCPUs may change, and this host would not "
              "notice (shadow paging, one VM per vCPU): "
              "keep page tables in private pages (docs/guest-abi.md), or use a host with nested paging",
              parts_.id.raw, address_of(*shared).raw);
}

// The instruction that stopped is complete (or, at a fault, has not begun).
Status Vcpu::end_stop() {
  TRY(check_tables());
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  // An exception that waits goes first: KVM forgets an interrupt that is given to it as well, and it would
  // stay in service for ever.
  interrupts_enabled_ = (regs.rflags & x86::kInterruptFlag) != 0 && !faults_;
  faults_ = false;
  after_ = After::kPosition;
  ++completed_stops_;
  faulting_.reset();
  if (stops_ == compared_stops_)
    return {};  // a trap: nothing to compare, replay makes only those at which something happens
  compared_stops_ = stops_;
  digest_ = digest_registers(regs, digest_);
  TRY(journal_->stopped(digest_));
  if (parts_.digest_every == 0 || stops_ % parts_.digest_every != 0) return {};
  TRY_ASSIGN(const uint64_t machine, parts_.digest());
  return journal_->compared_machine(machine);
}

Status Vcpu::guest_error(const std::string& what) {
  count_stop();
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  journal_->stop_machine(
      {StopReason::kGuestError, 0, fmt::format("vCPU {}: {} (rip {:#x})", parts_.id.raw, what, regs.rip)});
  halted_ = true;
  return end_stop();
}

Result<uint64_t> Vcpu::digest() {
  TRY_ASSIGN(const kvm_regs regs, parts_.kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, parts_.kvm.special_registers());
  TRY_ASSIGN(kvm_fpu fpu, parts_.kvm.fpu());
  if (!parts_.compare_mxcsr) fpu.mxcsr = 0;
  return digest_vcpu(regs, sregs, fpu, digest_);
}

Status Vcpu::leave() {
  TRY_ASSIGN(final_digest_, digest());
  return journal_->ended(final_digest_);
}

}  // namespace reprise::vmm
