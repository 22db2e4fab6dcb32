#include "replay/gdb/timeline_target.h"

#include <algorithm>
#include <cstring>

#include "replay/debug/debug_registers.h"
#include "vmm/kvm/cpu_state.h"
#include "x86/linear_memory.h"

namespace reprise::replay::gdb {
Result<std::unique_ptr<TimelineTarget>> TimelineTarget::create(Timeline& timeline,
                                                               const log::Recording& recording) {
  std::unique_ptr<TimelineTarget> target(new TimelineTarget(timeline, recording));
  for (const CheckpointInfo& checkpoint : timeline.checkpoints())
    if (checkpoint.from_file) target->keep(checkpoint.mark);
  return target;
}

// --- the machine at this moment ---

std::string TimelineTarget::vcpu_state(VcpuId vcpu) const {
  const auto turn = timeline_.turn();
  if (turn == vcpu) return "its turn";
  return timeline_.machine().vcpu(vcpu).is_halted() ? "halted" : "not its turn";
}

Result<Registers> TimelineTarget::registers(VcpuId vcpu) const {
  return read_registers(timeline_.machine().kvm(vcpu));
}

size_t TimelineTarget::read(VcpuId vcpu, Gva address, std::span<uint8_t> out) const {
  const auto sregs = timeline_.machine().kvm(vcpu).special_registers();
  if (!sregs) return 0;
  const vmm::WholeMemory physical(timeline_.machine(), vcpu);
  return x86::LinearMemory(vmm::paging_of(*sregs), physical).read(address, out);
}

size_t TimelineTarget::read_physical(VcpuId vcpu, Gpa address, std::span<uint8_t> out) const {
  const vmm::WholeMemory physical(timeline_.machine(), vcpu);
  size_t done = 0;
  while (done < out.size()) {
    const Gpa at = address + done;
    const size_t part = std::min<size_t>(out.size() - done, kPageSize - (at.raw & (kPageSize - 1)));
    if (!physical.read(at, out.subspan(done, part))) break;
    done += part;
  }
  return done;
}

Gpa TimelineTarget::ram_end() const {
  return Gpa(timeline_.machine().memory().bytes());
}

std::optional<Gpa> TimelineTarget::translate(VcpuId vcpu, Gva address) const {
  const auto sregs = timeline_.machine().kvm(vcpu).special_registers();
  if (!sregs) return std::nullopt;
  const vmm::WholeMemory physical(timeline_.machine(), vcpu);
  return x86::LinearMemory(vmm::paging_of(*sregs), physical).translate(address);
}

// --- moving ---

template <typename Run>
Result<StopEvent> TimelineTarget::interruptibly(Interruption& interruption, Run run) {
  const Mark start = timeline_.now();
  interrupted_ = false;
  timeline_.set_interruption([&] { return interrupted_ = interruption.interrupted(); });
  Result<StopEvent> stop = run();
  timeline_.set_interruption({});
  if (stop) return stop;
  // Whatever went wrong, the machine must stand somewhere.
  if (!timeline_.is_at_mark()) TRY(timeline_.seek(interrupted_ ? timeline_.now().without_steps() : start));
  if (interrupted_) return search_.stop_here(StopReason::kInterrupted);
  return stop;
}

Status TimelineTarget::seek(const Mark& mark, Interruption& interruption) {
  TRY(check_recorded());
  if (mark > end())
    return fail(ErrorCode::kUsage, "{} is not in the recording, which goes from {} to {}", to_text(mark),
                to_text(begin()), to_text(end()));
  TRY_ASSIGN(const auto stop, interruptibly(interruption, [&]() -> Result<StopEvent> {
               TRY(timeline_.seek(mark));
               return search_.stop_here(StopReason::kStep);
             }));
  if (stop.reason == StopReason::kInterrupted)
    return fail(ErrorCode::kUsage, "interrupted at {}", to_text(now()));
  return {};
}

Result<StopEvent> TimelineTarget::resume(Direction direction, VcpuId diverted, RunListener& listener) {
  if (in_diversion() && direction == Direction::kForward) return diversion_->resume(diverted, listener);
  TRY(check_recorded());
  return interruptibly(listener, [&] {
    return direction == Direction::kForward ? search_.run_forward(end(), listener)
                                            : search_.run_backward(listener);
  });
}

Result<StopEvent> TimelineTarget::step(VcpuId vcpu, Direction direction, RunListener& listener) {
  if (in_diversion() && direction == Direction::kForward) return diversion_->step(vcpu, listener);
  TRY(check_recorded());
  return interruptibly(listener, [&] {
    return direction == Direction::kForward ? search_.step_forward(vcpu, listener)
                                            : search_.step_backward(vcpu, listener);
  });
}

Status TimelineTarget::insert(const Breakpoint& breakpoint) {
  return search_.insert(breakpoint);
}

Status TimelineTarget::remove(const Breakpoint& breakpoint) {
  search_.remove(breakpoint);
  return {};
}

// --- diversions ---

Status TimelineTarget::check_recorded() const {
  if (!in_diversion()) return {};
  return fail(ErrorCode::kUsage,
              "not in a diversion, which only runs forward; 'monitor diversion end' leaves it");
}

Status TimelineTarget::check_diverted() const {
  if (in_diversion()) return {};
  return fail(ErrorCode::kUsage,
              "a recording cannot be changed; 'monitor diversion begin' makes a copy that can");
}

Status TimelineTarget::begin_diversion() {
  if (in_diversion())
    return fail(ErrorCode::kUsage, "there is a diversion already; 'monitor diversion end' leaves it");
  TRY_ASSIGN(diversion_, Diversion::begin(timeline_, recording_, search_));
  return {};
}

Status TimelineTarget::end_diversion() {
  if (!in_diversion()) return {};
  Status ended = diversion_->end();
  diversion_.reset();
  return ended;
}

Status TimelineTarget::set_registers(VcpuId vcpu, const Registers& registers) {
  TRY(check_diverted());
  return diversion_->set_registers(vcpu, registers);
}

Status TimelineTarget::write(VcpuId vcpu, Gva address, std::span<const uint8_t> bytes) {
  TRY(check_diverted());
  return diversion_->write(vcpu, address, bytes);
}

Status TimelineTarget::write_physical(Gpa address, std::span<const uint8_t> bytes) {
  TRY(check_diverted());
  return diversion_->write_physical(address, bytes);
}

// --- what only a recording can answer ---

Result<Checkpoint> TimelineTarget::make_checkpoint() {
  TRY(check_recorded());
  TRY(timeline_.checkpoint());
  return keep(now());
}

Checkpoint TimelineTarget::keep(const Mark& mark) {
  checkpoints_.push_back({static_cast<uint32_t>(checkpoints_.size() + 1), mark});
  return checkpoints_.back();
}

std::optional<std::vector<Right>> TimelineTarget::rights(PageNumber page) const {
  std::vector<Right> rights;
  for (VcpuId vcpu; vcpu.raw < vcpu_count(); ++vcpu) {
    const ept::View& view = timeline_.machine().view(vcpu);
    if (view.is_exempt(page)) return std::nullopt;
    rights.push_back(view.right(page));
  }
  return rights;
}

Result<std::optional<LastWrite>> TimelineTarget::last_write(Gpa address, Interruption& interruption) {
  TRY(check_recorded());
  const WatchedRange range{.start = address, .bytes = 1, .reads = false, .writes = true};
  TRY(WatchedMemory::check(timeline_.machine(), {&range, 1}));
  const Mark here = now();
  std::optional<LastWrite> last;
  const auto found = interruptibly(interruption, [&]() -> Result<StopEvent> {
    TRY_ASSIGN(const auto stop, search_.last_access(range, interruption));
    if (stop.has_value()) {
      TRY_ASSIGN(const kvm_regs regs, timeline_.machine().kvm(stop->vcpu).registers());
      last = LastWrite{now(), stop->vcpu, Gva(regs.rip), stop->by_device};
    }
    return search_.stop_here(StopReason::kStep);
  });
  TRY(timeline_.seek(here));
  TRY(found);
  if (interrupted_) return fail(ErrorCode::kUsage, "interrupted");
  return last;
}

}  // namespace reprise::replay::gdb
