#include "vmm/vcpu.h"

#include "base/check.h"
#include "base/time.h"
#include "vmm/register_digest.h"
#include "vmm/vcpu/first_registers.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

// Of an instruction, each of them an exit: a page of bytes that a string instruction sends to a port.
constexpr unsigned kMostParts = 4096;

}  // namespace

Status Vcpu::boot(const BootState& state) {
  return set_boot_registers(context_.kvm(), context_.parts().id, state);
}

Status Vcpu::reset() {
  return injector_.reset();
}

bool Vcpu::at_fault() const {
  const auto* exit = std::get_if<InExit>(&context_.standing());
  return std::holds_alternative<AtFault>(context_.standing()) || (exit != nullptr && exit->at_fault);
}

bool Vcpu::is_between_positions() const {
  const auto* exit = std::get_if<InExit>(&context_.standing());
  return std::holds_alternative<BetweenPositions>(context_.standing()) || (exit != nullptr && exit->between);
}

std::optional<PhysicalAccess> Vcpu::access_under_way() const {
  const auto* exit = std::get_if<InExit>(&context_.standing());
  if (exit == nullptr || exit->exit != ExitKind::kMmio) return std::nullopt;
  const auto& mmio = context_.kvm().shared().mmio;
  return PhysicalAccess{.start = Gpa(mmio.phys_addr), .bytes = mmio.len, .writes = mmio.is_write != 0};
}

Result<Vcpu::Advance> Vcpu::go(std::optional<Ticks> step_until) {
  last_ = Advance::kLeft;
  if (left_) return last_;
  bool stepped = false;
  TRY_ASSIGN(const Flow flow, go_on(step_until, stepped));
  switch (flow) {
    case Flow::kGo:
      last_ = stepped ? Advance::kStepped : Advance::kOn;
      break;
    case Flow::kLater:
      last_ = Advance::kLater;
      break;
    case Flow::kCaught:
      last_ = Advance::kCaught;
      break;
    case Flow::kLeave:
      TRY(leave());
      left_ = true;
      break;
  }
  return last_;
}

Result<Flow> Vcpu::go_on(std::optional<Ticks> step_until, bool& stepped) {
  if (const auto* fault = std::get_if<AtFault>(&context_.standing());
      fault != nullptr && !fault->needed.empty())
    return faults_.take_missing(std::vector(fault->needed), true);
  if (const auto* exit = std::get_if<InExit>(&context_.standing())) return carry_out(exit->exit, true);
  Flow flow = Flow::kGo;
  TRY_ASSIGN(const bool ready, is_ready(flow));
  if (!ready) return flow;
  if (!step_until.has_value()) return enter();
  TRY_ASSIGN(const auto there, context_.parts().positioner.is_there(context_.journal()));
  if (there.has_value()) return stop_in_user_mode(*there);
  TRY_ASSIGN(const auto outcome, stepper_.step(*step_until));
  if (std::holds_alternative<VcpuStepper::EnterAsAlways>(outcome)) return enter();
  if (std::holds_alternative<VcpuStepper::MustLeave>(outcome)) return Flow::kLeave;
  if (const auto* exit = std::get_if<ExitKind>(&outcome))
    return *exit == ExitKind::kInterrupted ? interrupted() : carry_out(*exit, false);
  stepped = true;
  context_.stand(AtFault{});
  return Flow::kGo;
}

// Lets happen what is due, where something may happen. False: the vCPU does not execute now, and `flow` says
// how it goes on.
Result<bool> Vcpu::is_ready(Flow& flow) {
  if (!at_position()) return true;
  Journal& journal = context_.journal();
  const uint64_t moment = journal.moment();
  TRY_ASSIGN(flow, injector_.take_async());
  if (flow != Flow::kGo) return false;
  if (injector_.must_wait()) {
    TRY(journal.wait());
    return false;
  }
  TRY_ASSIGN(flow, context_.take_turn());
  if (flow != Flow::kGo) return false;
  if (journal.others_first()) flow = Flow::kLater;
  if (flow != Flow::kGo || journal.moment() != moment) return false;
  TRY(injector_.inject());
  return true;
}

Result<Flow> Vcpu::enter() {
  Journal& journal = context_.journal();
  if (journal.is_over()) return Flow::kLeave;
  Positioner& positioner = context_.parts().positioner;
  // Both journals do this, so replay agrees about interrupts that wait.
  Limit limit{.until = journal.next_stop(),
              .interrupt_waits = injector_.has_pending(),
              .exact = journal.stops_exactly()};
  positioner.arm(limit);
  if (journal.kicked()) {
    limit.until = Ticks(0);
    positioner.arm(limit);
  }
  return run_guest();
}

Result<Flow> Vcpu::run_guest() {
  Journal& journal = context_.journal();
  Positioner& positioner = context_.parts().positioner;
  KvmVcpu& kvm = context_.kvm();
  const VcpuWatch& watch = context_.watch();
  if (watch.entry) TRY(watch.entry());
  TRY(positioner.entering(journal));
  in_guest_.store(true, std::memory_order_relaxed);
  const uint64_t start = monotonic_ns();
  journal.entering(start);
  auto ran = kvm.run();
  const uint64_t end = monotonic_ns();
  journal.exited(end, ran.has_value() && *ran == ExitKind::kFault);
  context_.statistics().guest_ns += end - start;
  in_guest_.store(false, std::memory_order_relaxed);
  TRY_ASSIGN(const ExitKind exit, std::move(ran));
  TRY_ASSIGN(const BreakpointExit at, positioner.exited(exit, journal));
  return std::holds_alternative<OtherExit>(at) ? exited(exit) : at_breakpoint(at);
}

Result<Flow> Vcpu::exited(ExitKind exit) {
  for (;;) {
    const VcpuWatch& watch = context_.watch();
    if (watch.exit) {
      TRY_ASSIGN(const WatchVerdict verdict, watch.exit(exit));
      if (verdict == WatchVerdict::kDone) context_.stand(AtFault{});
      if (verdict == WatchVerdict::kDone) return Flow::kGo;
      if (verdict == WatchVerdict::kCaught) stand_in(exit);
      if (verdict == WatchVerdict::kCaught) return Flow::kCaught;
    }
    if (exit == ExitKind::kInterrupted) return interrupted();
    if (exit != ExitKind::kInterruptWindow || !context_.parts().positioner.is_recordable())
      return carry_out(exit, false);
    TRY_ASSIGN(const auto window, stepper_.step_out_of_shadow());
    if (window.is_open) return carry_out(exit, false);
    // What took IF away left the window shut; it is asked for again.
    if (!window.exit.has_value()) context_.stand(AtFault{});
    if (!window.exit.has_value()) return Flow::kGo;
    exit = *window.exit;
  }
}

void Vcpu::stand_in(ExitKind exit) {
  context_.stand(InExit{.exit = exit, .at_fault = at_fault(), .between = is_between_positions()});
}

Result<Flow> Vcpu::carry_out(ExitKind exit, bool anew) {
  bool caught = false;  // by the access that was answered: only its instruction is completed
  bool is_stop = anew;  // else only the host made it exit
  for (;; anew = false) {
    is_stop |= !handlers_.is_hosts(exit);
    TRY_ASSIGN(const Flow flow, handlers_.handle(exit, anew));
    if (!is_completed_by_kvm(exit)) return flow;
    if (flow == Flow::kLater || flow == Flow::kLeave) {
      stand_in(exit);
      return flow;
    }
    caught |= flow == Flow::kCaught;
    const bool raises = handlers_.raises(exit);
    TRY_ASSIGN(const auto next_part, handlers_.complete(exit));
    if (!next_part.has_value()) {
      if (is_stop)
        TRY(context_.end_stop(raises));
      else
        context_.stand(BetweenPositions{});
      return caught ? Flow::kCaught : Flow::kGo;
    }
    exit = *next_part;
    if (context_.watch().part && context_.watch().part(exit)) {
      stand_in(exit);
      return Flow::kCaught;
    }
  }
}

Result<Flow> Vcpu::interrupted() {
  if (context_.kvm().forced_exit().given_up())
    return fail(ErrorCode::kGuest,
                "vCPU {} executed code without safepoints and system calls, where no place has a name; the "
                "recording is a prefix, which can be replayed up to that vCPU's last stop",
                context_.parts().id.raw);
  Journal& journal = context_.journal();
  Positioner& positioner = context_.parts().positioner;
  if (positioner.names_every_place()) journal.arrive(position());
  TRY_ASSIGN(const Interruption at, positioner.interrupted(journal));
  if (std::holds_alternative<AnyPlace>(at)) {
    context_.stand(AtPosition{});
    TRY_ASSIGN(const kvm_regs regs, context_.kvm().registers());
    context_.set_interrupts_enabled((regs.rflags & x86::kInterruptFlag) != 0);
  } else if (const auto* spin = std::get_if<log::Spin>(&at)) {
    ++context_.statistics().spins;
    return stop_in_user_mode(*spin);
  } else if (const auto* place = std::get_if<log::Preemption>(&at)) {
    return stop_in_user_mode(*place);
  } else if (std::holds_alternative<StepOver>(at)) {
    return step_over();
  } else {
    context_.stand(BetweenPositions{});
  }
  return Flow::kGo;
}

Result<Flow> Vcpu::at_breakpoint(const BreakpointExit& at) {
  if (const auto* stop = std::get_if<log::UserBreakpoint>(&at)) return stop_in_user_mode(*stop);
  context_.stand(BetweenPositions{});
  return std::holds_alternative<StepOver>(at) ? step_over() : Flow::kGo;
}

// The instruction that it stands at, and no more.
Result<Flow> Vcpu::step_over() {
  context_.stand(BetweenPositions{});
  TRY_ASSIGN(const auto outcome, stepper_.step(kNoTick));
  if (std::holds_alternative<VcpuStepper::Stepped>(outcome)) return Flow::kGo;
  if (std::holds_alternative<VcpuStepper::MustLeave>(outcome)) return Flow::kLeave;
  if (const auto* exit = std::get_if<ExitKind>(&outcome)) return exited(*exit);
  Positioner& positioner = context_.parts().positioner;
  if (const auto until = positioner.nearest_limit()) {
    // It makes a stop by itself. If it does not, a place that was near is passed, which shows there.
    positioner.arm({.until = *until, .interrupt_waits = injector_.has_pending()});
    return run_guest();
  }
  TRY_ASSIGN(const kvm_regs regs, context_.kvm().registers());
  return fail(ErrorCode::kHost, "vCPU {}: the instruction at {:#x} cannot be carried out alone",
              context_.parts().id.raw, regs.rip);
}

// Where its history has no position of its own.
Result<Flow> Vcpu::stop_in_user_mode(const UserStop& stop) {
  Journal& journal = context_.journal();
  journal.arrive(position());  // there may have been ticks since
  TRY(journal.stopped_in_user_mode(stop));
  if (std::holds_alternative<log::UserBreakpoint>(stop)) ++context_.statistics().breakpoints;
  context_.count_stop();
  TRY(context_.end_stop());
  return Flow::kGo;
}

Result<uint64_t> Vcpu::digest() {
  KvmVcpu& kvm = context_.kvm();
  TRY_ASSIGN(const kvm_regs regs, kvm.registers());
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  TRY_ASSIGN(kvm_fpu fpu, kvm.fpu());
  const DigestScope scope = context_.parts().digest_scope;
  if (scope == DigestScope::kWithoutMxcsr) fpu.mxcsr = 0;
  const uint64_t digest = digest_vcpu(regs, sregs, fpu, context_.digest());
  if (scope != DigestScope::kAll) return digest;
  TRY_ASSIGN(const kvm_debugregs debug, kvm.debug_registers());
  TRY_ASSIGN(const uint64_t xcr0, kvm.xcr0());
  TRY_ASSIGN(auto msrs, kvm.msrs(compared_msrs()));
  for (size_t i = 0; i < msrs.size(); ++i) msrs[i] &= compared_bits(compared_msrs()[i]);
  return digest_system_registers(debug, xcr0, msrs, digest);
}

Status Vcpu::leave() {
  TRY_ASSIGN(final_digest_, digest());
  return context_.journal().ended(final_digest_);
}

bool Vcpu::can_be_saved() const {
  return !std::holds_alternative<InExit>(context_.standing()) && !left_;
}

Result<VcpuState> Vcpu::save(std::span<const uint32_t> msrs) {
  REPRISE_CHECK(can_be_saved());
  VcpuState state;
  TRY_ASSIGN(state.kvm, context_.kvm().save(msrs));
  StateWriter own;
  visit(own);
  state.own = own.take();
  return state;
}

Status Vcpu::restore(const VcpuState& state) {
  TRY(drop_exit());
  context_.set_journal(context_.parts().journal);
  TRY(context_.kvm().restore(state.kvm));
  left_ = false;
  StateReader own(state.own);
  visit(own);
  return own.finish();
}

void Vcpu::visit(StateVisitor& visitor) {
  visitor("context", context_);
  visitor("faults", faults_);
  visitor("injector", injector_);
}

void Vcpu::divert(Journal& journal) {
  context_.set_journal(journal);
  journal.arrive(position());
  left_ = false;
}

Status Vcpu::drop_what_is_under_way() {
  if (context_.parts().apic.waiting_for_startup())
    return fail(ErrorCode::kUsage, "vCPU {} has not been started yet: its registers cannot be changed",
                context_.parts().id.raw);
  TRY(drop_exit());
  TRY_ASSIGN(kvm_vcpu_events events, context_.kvm().events());
  events.exception = {};
  events.interrupt = {};
  events.nmi.injected = events.nmi.pending = 0;
  events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  TRY(context_.kvm().set_events(events));
  faults_.forget();
  context_.set_halted(false);
  context_.stand(AtFault{});
  return {};
}

// An exit that has begun is dropped with the instruction that made it.
Status Vcpu::drop_exit() {
  if (!std::holds_alternative<InExit>(context_.standing())) return {};
  context_.stand(AtFault{});
  for (unsigned parts = 0; parts < kMostParts; ++parts) {
    TRY_ASSIGN(const auto part, context_.kvm().complete());
    if (!part.has_value()) return {};
  }
  return fail(ErrorCode::kHost, "KVM does not come to the end of an instruction (exit reason {})",
              context_.kvm().shared().exit_reason);
}

}  // namespace reprise::vmm
