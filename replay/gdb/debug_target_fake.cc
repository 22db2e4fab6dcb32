#include "replay/gdb/debug_target_fake.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "vmm/kvm/cpu_state.h"

namespace reprise::replay::gdb {
namespace {

constexpr size_t kMaxCheckpoints = 100;

// Copies what there is of `memory` from `from` on.
size_t copy_out(std::span<const uint8_t> memory, uint64_t from, std::span<uint8_t> out) {
  if (from >= memory.size()) return 0;
  const size_t bytes = std::min<size_t>(out.size(), memory.size() - from);
  std::memcpy(out.data(), &memory[from], bytes);
  return bytes;
}

}  // namespace

std::string FakeDebugTarget::vcpu_state(VcpuId vcpu) const {
  return machine().halted(vcpu) ? "halted" : next_vcpu() == vcpu ? "running" : "waiting for its turn";
}

Result<Registers> FakeDebugTarget::registers(VcpuId vcpu) const {
  return machine().registers(vcpu);
}

size_t FakeDebugTarget::read(VcpuId /*vcpu*/, Gva address, std::span<uint8_t> out) const {
  const auto at = ToyMachine::translate(address);
  return at ? read_physical(VcpuId(0), *at, out) : 0;
}

size_t FakeDebugTarget::read_physical(VcpuId /*vcpu*/, Gpa address, std::span<uint8_t> out) const {
  return copy_out(machine().memory(), address.raw, out);
}

std::optional<Gpa> FakeDebugTarget::translate(VcpuId /*vcpu*/, Gva address) const {
  return ToyMachine::translate(address);
}

Status FakeDebugTarget::seek(const Mark& mark, Interruption& /*interruption*/) {
  if (diverted_) return fail(ErrorCode::kUsage, "in a diversion; 'monitor diversion end' leaves it");
  if (mark.at.ticks.raw != 0 || mark.at.steps != 0 || mark > end())
    return fail(ErrorCode::kUsage, "{} is not in the recording, which goes from 0 to {}", to_text(mark),
                to_text(end()));
  at_ = mark.event;
  return {};
}

Result<StopEvent> FakeDebugTarget::resume(Direction direction, VcpuId /*diverted*/, RunListener& listener) {
  return run(direction, std::nullopt, listener);
}

Result<StopEvent> FakeDebugTarget::step(VcpuId vcpu, Direction direction, RunListener& listener) {
  return run(direction, vcpu, listener);
}

Status FakeDebugTarget::insert(const Breakpoint& breakpoint) {
  breakpoints_.insert(breakpoint);
  return {};
}

Status FakeDebugTarget::remove(const Breakpoint& breakpoint) {
  breakpoints_.erase(breakpoint);
  return {};
}

std::optional<VcpuId> FakeDebugTarget::next_vcpu() const {
  if (!diverted_) return at_ < history_.steps.size() ? std::optional(history_.steps[at_].vcpu) : std::nullopt;
  for (VcpuId vcpu; vcpu.raw < kToyVcpus; ++vcpu)
    if (!diverted_->halted(vcpu)) return vcpu;
  return std::nullopt;
}

Result<std::optional<ToyAccess>> FakeDebugTarget::advance(VcpuId vcpu) {
  if (diverted_) return diverted_->step(vcpu);
  if (fail_at_ == at_) return fail(ErrorCode::kDivergence, "vCPU {} diverged at {}", vcpu.raw, at_);
  return history_.steps[at_++].access;
}

std::optional<StopEvent> FakeDebugTarget::breakpoint_at(VcpuId vcpu) const {
  const Gva at(machine().registers(vcpu).general.rip);
  for (const auto kind : {BreakpointKind::kSoftware, BreakpointKind::kHardware}) {
    const Breakpoint here{.kind = kind, .address = at};
    if (breakpoints_.contains(here))
      return StopEvent{.reason = StopReason::kBreakpoint, .vcpu = vcpu, .hit = here};
  }
  return std::nullopt;
}

std::optional<StopEvent> FakeDebugTarget::watchpoint_of(VcpuId vcpu,
                                                        const std::optional<ToyAccess>& access) const {
  if (!access) return std::nullopt;
  for (const Breakpoint& breakpoint : breakpoints_) {
    if (!breakpoint.is_watchpoint()) continue;
    if (breakpoint.kind != BreakpointKind::kAccess &&
        (breakpoint.kind == BreakpointKind::kWrite) != access->write)
      continue;
    const Gva first = std::max(breakpoint.address, access->address);
    if (first >= breakpoint.address + breakpoint.length || first >= access->address + access->length)
      continue;
    return StopEvent{.reason = StopReason::kWatchpoint, .vcpu = vcpu, .hit = breakpoint, .accessed = first};
  }
  return std::nullopt;
}

Result<StopEvent> FakeDebugTarget::run(Direction direction, std::optional<VcpuId> stepped,
                                       RunListener& listener) {
  const bool forward = direction == Direction::kForward;
  if (diverted_ && !forward)
    return fail(ErrorCode::kUsage, "a diversion runs forward only; 'monitor diversion end' leaves it");
  while (true) {
    if (listener.interrupted())
      return StopEvent{.reason = StopReason::kInterrupted, .vcpu = next_vcpu().value_or(VcpuId(0))};
    if (pause_.count() != 0) std::this_thread::sleep_for(pause_);
    if (forward) {
      const auto vcpu = next_vcpu();
      if (!vcpu) return StopEvent{.reason = StopReason::kEnd};
      const auto stop = vcpu == stepped ? std::nullopt : breakpoint_at(*vcpu);
      if (stop && listener.wants(*stop)) return *stop;
      TRY_ASSIGN(const auto access, advance(*vcpu));
      if (const auto watched = watchpoint_of(*vcpu, access)) return *watched;
      if (vcpu == stepped) return StopEvent{.reason = StopReason::kStep, .vcpu = *vcpu};
    } else {
      if (at_ == 0) return StopEvent{.reason = StopReason::kBegin};
      const auto& [vcpu, access] = history_.steps[--at_];
      if (const auto watched = watchpoint_of(vcpu, access)) return *watched;
      if (vcpu == stepped) return StopEvent{.reason = StopReason::kStep, .vcpu = vcpu};
      if (const auto stop = breakpoint_at(vcpu); stop && listener.wants(*stop)) return *stop;
    }
  }
}

Status FakeDebugTarget::begin_diversion() {
  if (diverted_)
    return fail(ErrorCode::kUsage, "there is a diversion already; 'monitor diversion end' leaves it");
  diverted_ = machine();
  return {};
}

Status FakeDebugTarget::end_diversion() {
  diverted_.reset();
  return {};
}

Status FakeDebugTarget::check_diverted() const {
  if (diverted_) return {};
  return fail(ErrorCode::kUsage,
              "a recording cannot be changed; 'monitor diversion begin' makes a copy that can");
}

Status FakeDebugTarget::set_registers(VcpuId vcpu, const Registers& registers) {
  TRY(check_diverted());
  diverted_->set_registers(vcpu, registers);
  return {};
}

Status FakeDebugTarget::write(VcpuId /*vcpu*/, Gva address, std::span<const uint8_t> bytes) {
  TRY(check_diverted());
  const auto at = ToyMachine::translate(address);
  if (!at) return fail(ErrorCode::kNotFound, "{:#x} is not mapped", address.raw);
  return write_physical(*at, bytes);
}

Status FakeDebugTarget::write_physical(Gpa address, std::span<const uint8_t> bytes) {
  TRY(check_diverted());
  if (address.raw > kToyBytes || bytes.size() > kToyBytes - address.raw)
    return fail(ErrorCode::kNotFound, "{:#x} is not RAM", address.raw);
  std::memcpy(diverted_->memory().data() + address.raw, bytes.data(), bytes.size());
  return {};
}

Result<Checkpoint> FakeDebugTarget::make_checkpoint() {
  if (checkpoints_.size() == kMaxCheckpoints)
    return fail(ErrorCode::kUsage, "{} checkpoints are enough", kMaxCheckpoints);
  checkpoints_.push_back({static_cast<uint32_t>(checkpoints_.size() + 1), now()});
  return checkpoints_.back();
}

// The first page belongs to vCPU 0, the second to all, the third is each one's own.
std::optional<std::vector<Right>> FakeDebugTarget::rights(PageNumber page) const {
  if (page.raw == 2) return std::nullopt;
  return std::vector{Right::kWrite, page.raw == 1 ? Right::kRead : Right::kNone};
}

Result<std::optional<LastWrite>> FakeDebugTarget::last_write(Gpa address, Interruption& /*interruption*/) {
  std::optional<LastWrite> none;
  for (uint64_t i = at_; i-- > 0;) {
    const auto& [vcpu, access] = history_.steps[i];
    const auto first = access && access->write ? ToyMachine::translate(access->address) : std::nullopt;
    if (!first || address < *first || address - *first >= access->length) continue;
    return LastWrite{Mark{i}, vcpu, Gva(history_.states[i].registers(vcpu).general.rip)};
  }
  return none;
}

Result<uint64_t> FakeDebugTarget::digest() {
  uint64_t sum = 0;
  for (const uint8_t byte : machine().memory()) sum = sum * 31 + byte;
  return sum;
}

Result<std::string> FakeDebugTarget::history(PageNumber page, const Mark& now, uint32_t count) {
  return fmt::format("page {:#x}: {} before {}\n", page.raw, count, to_text(now));
}

Result<std::string> FakeDebugTarget::writers(PageNumber page, const Mark& now, uint32_t count) {
  return fmt::format("page {:#x}: {} writers before {}\n", page.raw, count, to_text(now));
}

Result<std::string> FakeDebugTarget::transfers(const Mark& now, uint32_t count) {
  return fmt::format("{} pages before {}\n", count, to_text(now));
}

Result<std::string> FakeDebugTarget::log(const Mark& now, uint32_t count) {
  return fmt::format("{} events around {}\n", count, to_text(now));
}

}  // namespace reprise::replay::gdb
