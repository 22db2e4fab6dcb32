#include "replay/debug/diversion.h"

#include <algorithm>

#include "base/time.h"
#include "replay/debug/debug_registers.h"
#include "replay/debug/software_breakpoints.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::replay {

namespace {

constexpr uint64_t kSliceNs = 5'000'000;
constexpr size_t kConsoleBytes = 64 << 10;  // kept at least: more than a person reads after one command

}  // namespace

Diversion::Diversion(Timeline& timeline, const log::Recording& recording, StopSearch& stops)
    : timeline_(timeline),
      recording_(recording),
      stops_(stops),
      origin_(timeline.now()),
      world_(timeline.machine().vcpus(), [this] { return last_time(); }),
      preemption_timer_(timeline.machine()) {}

Result<std::unique_ptr<Diversion>> Diversion::begin(Timeline& timeline, const log::Recording& recording,
                                                    StopSearch& stops) {
  TRY(timeline.checkpoint_for_search());
  std::unique_ptr<Diversion> diversion(new Diversion(timeline, recording, stops));
  timeline.taint([to = diversion.get()](uint8_t byte) { to->wrote(byte); });
  vmm::Machine& machine = timeline.machine();
  for (VcpuId id; id.raw < machine.vcpus(); ++id) {
    vmm::Vcpu& vcpu = machine.vcpu(id);
    diversion->positions_.push_back(vcpu.position());
    if (const auto timer = vcpu.running_timer()) diversion->world_.perform(id, *timer);
    diversion->journals_.push_back(
        std::make_unique<DivertedJournal>(id, diversion->world_, machine.view(id)));
    vcpu.divert(*diversion->journals_.back());
  }
  return diversion;
}

// What any vCPU was told up to where it stood when the fork began: time is one for all. Reads all logs.
Result<uint64_t> Diversion::last_time() const {
  uint64_t last = 0;
  for (VcpuId vcpu; vcpu.raw < positions_.size(); ++vcpu) {
    TRY_ASSIGN(auto reader, recording_.open_log(vcpu));
    for (;;) {
      TRY_ASSIGN(const auto event, reader.next());
      if (!event.has_value() || event->position > positions_[vcpu.raw]) break;
      const auto* value = std::get_if<log::Value>(&event->what);
      if (value != nullptr && value->source == log::Source::kTime) last = std::max(last, value->value);
    }
  }
  return last;
}

// --- changes ---

Status Diversion::set_registers(VcpuId vcpu, const Registers& registers) {
  TRY(machine().vcpu(vcpu).drop_what_is_under_way());
  return write_registers(machine().kvm(vcpu), registers);
}

Status Diversion::write(VcpuId vcpu, Gva address, std::span<const uint8_t> bytes) {
  TRY_ASSIGN(const kvm_sregs sregs, machine().kvm(vcpu).special_registers());
  const vmm::WholeMemory physical(machine(), vcpu);
  const x86::LinearMemory memory(vmm::paging_of(sregs), physical);
  return write_at(address.raw, bytes, [&](uint64_t at) {
    const auto gpa = memory.translate(Gva(at));
    return gpa.has_value() ? physical.writable(*gpa, 1) : nullptr;
  });
}

Status Diversion::write_physical(Gpa address, std::span<const uint8_t> bytes) {
  const vmm::WholeMemory physical(machine(), VcpuId(0));
  return write_at(address.raw, bytes, [&](uint64_t at) { return physical.writable(Gpa(at), 1); });
}

// All places are found before any is written to.
Status Diversion::write_at(uint64_t address, std::span<const uint8_t> bytes,
                           const std::function<uint8_t*(uint64_t)>& find) {
  std::vector<uint8_t*> places;
  for (uint64_t at = address; places.size() < bytes.size(); ++at) {
    places.push_back(find(at));
    if (places.back() == nullptr) return fail(ErrorCode::kNotFound, "no RAM is at {:#x}", at);
  }
  for (size_t i = 0; i < bytes.size(); ++i) *places[i] = bytes[i];
  return {};
}

// --- running ---

Status Diversion::make_breakpoints_executable(VcpuId vcpu) {
  constexpr uint64_t kTopByte = 7;        // of an entry of eight
  constexpr uint8_t kNoExecute = 1 << 7;  // bit 63: Intel SDM vol. 3, 4.6.1
  vmm::KvmVcpu& kvm = machine().kvm(vcpu);
  TRY_ASSIGN(const kvm_sregs sregs, kvm.special_registers());
  if ((sregs.efer & x86::kEferNoExecute) == 0) return {};
  const vmm::WholeMemory physical(machine(), vcpu);
  bool changed = false;
  for (const Gva address : stops_.addresses()) {
    const auto walk = x86::walk_page(vmm::paging_of(sregs), physical, address, {}, false);
    if (walk.outcome != x86::WalkOutcome::kMapped) continue;
    for (const Gpa entry : walk.entries()) {
      const uint8_t* const top = physical.at(entry + kTopByte, 1);
      if (top == nullptr || (*top & kNoExecute) == 0) continue;
      *physical.writable(entry + kTopByte, 1) &= static_cast<uint8_t>(~kNoExecute);
      changed = true;
    }
  }
  if (!changed || !machine().vcpu(vcpu).can_be_saved()) return {};
  TRY_ASSIGN(const auto state, kvm.save({}));
  TRY(kvm.forget_translations());
  return kvm.restore(state);
}

Result<StopSearch::Stop> Diversion::breakpoint_here(VcpuId vcpu) {
  TRY_ASSIGN(const kvm_regs regs, machine().kvm(vcpu).registers());
  return stops_.breakpoint_at(vcpu, Gva(regs.rip));
}

Result<bool> Diversion::step_once(VcpuId id) {
  vmm::Vcpu& vcpu = machine().vcpu(id);
  const uint64_t completed = vcpu.completed_stops();
  TRY(vcpu.step(vcpu.position().ticks + 1));
  return vcpu.stepped() || (vcpu.at_position() && vcpu.completed_stops() != completed);
}

Status Diversion::check_on() const {
  if (!world_.stopped().has_value()) return {};
  return fail(ErrorCode::kGuest, "the diversion is at its end: {}", *world_.stopped());
}

Result<VcpuId> Diversion::turn_after(VcpuId vcpu) {
  TRY(check_on());
  const uint64_t now = monotonic_ns();
  if (!journals_[vcpu.raw]->waits() && now - slice_ns_ < kSliceNs) return vcpu;
  world_.pass(now - std::exchange(slice_ns_, now));
  do {
    for (uint32_t i = 1; i <= machine().vcpus(); ++i) {
      const VcpuId next((vcpu.raw + i) % machine().vcpus());
      if (!journals_[next.raw]->waits()) return next;
    }
  } while (world_.pass_to_next_timer());
  return fail(ErrorCode::kGuest, "{}", vmm::kNothingCanWake);
}

Result<VcpuId> Diversion::run(VcpuId turn, Interruption& interruption) {
  TRY_ASSIGN(const auto planted, SoftwareBreakpoints::plant(machine(), stops_.addresses()));
  bool found = false;
  for (VcpuId vcpu; vcpu.raw < machine().vcpus(); ++vcpu)
    machine().vcpu(vcpu).watch({.entry = [&, vcpu] { return planted->enter(vcpu); },
                                .exit = [&, vcpu](vmm::ExitKind exit) -> Result<vmm::Vcpu::Verdict> {
                                  TRY_ASSIGN(const bool own, planted->pass(vcpu, exit));
                                  if (own) return vmm::Vcpu::Verdict::kDone;
                                  TRY_ASSIGN(const auto address, planted->find(vcpu, exit));
                                  found = address.has_value();
                                  if (!found) return vmm::Vcpu::Verdict::kHandle;
                                  TRY(planted->stand_at(vcpu, *address));
                                  return vmm::Vcpu::Verdict::kDone;
                                },
                                .part = {},
                                .access = {}});
  auto stopped = [&]() -> Result<VcpuId> {
    while (!interruption.interrupted()) {
      TRY(machine().vcpu(turn).advance());
      if (found) break;
      TRY_ASSIGN(turn, turn_after(turn));
    }
    return turn;
  }();
  for (VcpuId vcpu; vcpu.raw < machine().vcpus(); ++vcpu) machine().vcpu(vcpu).watch({});
  return stopped;
}

Result<StopEvent> Diversion::resume(VcpuId turn, RunListener& listener) {
  const PreemptionTimer::Beating beating(preemption_timer_);
  slice_ns_ = monotonic_ns();
  TRY(check_on());
  TRY(make_breakpoints_executable(turn));
  // What runs natively comes from no address with a breakpoint: the byte there would stop it at once.
  StopSearch::Begun begun;
  for (bool has_moved = false;;) {
    TRY_ASSIGN(const auto stop, breakpoint_here(turn));
    if (stop.has_value() && listener.wants(*stop)) return *stop;
    if (listener.interrupted()) return StopEvent{.reason = StopReason::kInterrupted, .vcpu = turn};
    if (has_moved && !stop.has_value() && !stops_.watches_memory()) {
      TRY_ASSIGN(turn, run(turn, listener));
      continue;
    }
    TRY_ASSIGN(const auto done, stops_.watch_step(turn, begun, [&] { return step_once(turn); }));
    if (done.accessed.has_value()) return *done.accessed;
    has_moved = done.completed;
    TRY_ASSIGN(turn, turn_after(turn));
  }
}

Result<StopEvent> Diversion::step(VcpuId vcpu, RunListener& listener) {
  const PreemptionTimer::Beating beating(preemption_timer_);
  StopSearch::Begun begun;
  for (;;) {
    TRY(check_on());
    TRY_ASSIGN(const auto done, stops_.watch_step(vcpu, begun, [&] { return step_once(vcpu); }));
    if (done.accessed.has_value()) return *done.accessed;
    if (done.completed) return StopEvent{.reason = StopReason::kStep, .vcpu = vcpu};
    if (listener.interrupted()) return StopEvent{.reason = StopReason::kInterrupted, .vcpu = vcpu};
    if (journals_[vcpu.raw]->waits())
      return fail(ErrorCode::kGuest, "vCPU {} is halted; 'continue' lets the others go on", vcpu.raw);
  }
}

void Diversion::wrote(uint8_t byte) {
  if (console_.size() == 2 * kConsoleBytes) console_.erase(0, kConsoleBytes);
  console_.push_back(static_cast<char>(byte));
}

}  // namespace reprise::replay
