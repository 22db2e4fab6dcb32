// A DebugTarget over the toy's history: everything that the stub may ask, without KVM. For tests.
#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "replay/gdb/debug_target.h"
#include "replay/gdb/recording_answers.h"
#include "replay/gdb/toy_machine_fake.h"
#include "vmm/kvm/cpu_state.h"

namespace reprise::replay::gdb {

// Marks: event is the number of instructions since the beginning; ticks and steps are 0. Threads: confined to
// one.
class FakeDebugTarget final : public DebugTarget, public RecordingAnswers {
 public:
  // `pause`: what each instruction takes at least, for who wants to interrupt.
  explicit FakeDebugTarget(std::chrono::microseconds pause = {}) : pause_(pause) {}

  [[nodiscard]] uint32_t vcpu_count() const override { return kToyVcpus; }
  [[nodiscard]] std::string vcpu_state(VcpuId vcpu) const override;
  [[nodiscard]] Result<Registers> registers(VcpuId vcpu) const override;
  [[nodiscard]] size_t read(VcpuId vcpu, Gva address, std::span<uint8_t> out) const override;
  [[nodiscard]] size_t read_physical(VcpuId vcpu, Gpa address, std::span<uint8_t> out) const override;
  [[nodiscard]] Gpa ram_end() const override { return Gpa(kToyBytes); }
  [[nodiscard]] std::optional<Gpa> translate(VcpuId vcpu, Gva address) const override;

  [[nodiscard]] Mark now() const override { return Mark{at_}; }
  [[nodiscard]] Mark begin() const override { return Mark{0}; }
  [[nodiscard]] Mark end() const override { return Mark{history_.steps.size()}; }
  Status seek(const Mark& mark, Interruption& interruption) override;
  Result<StopEvent> resume(Direction direction, VcpuId diverted, RunListener& listener) override;
  Result<StopEvent> step(VcpuId vcpu, Direction direction, RunListener& listener) override;
  Status insert(const Breakpoint& breakpoint) override;
  Status remove(const Breakpoint& breakpoint) override;

  Status begin_diversion() override;
  Status end_diversion() override;
  [[nodiscard]] bool in_diversion() const override { return diverted_.has_value(); }
  [[nodiscard]] std::string take_diverted_console() override { return {}; }
  Status set_registers(VcpuId vcpu, const Registers& registers) override;
  Status write(VcpuId vcpu, Gva address, std::span<const uint8_t> bytes) override;
  Status write_physical(Gpa address, std::span<const uint8_t> bytes) override;

  Result<Checkpoint> make_checkpoint() override;
  [[nodiscard]] std::vector<Checkpoint> checkpoints() const override { return checkpoints_; }
  [[nodiscard]] std::optional<std::vector<Right>> rights(PageNumber page) const override;
  Result<std::optional<LastWrite>> last_write(Gpa address, Interruption& interruption) override;
  Result<uint64_t> digest() override;

  Result<std::string> history(PageNumber page, const Mark& now, uint32_t count) override;
  Result<std::string> writers(PageNumber page, const Mark& now, uint32_t count) override;
  Result<std::string> transfers(const Mark& now, uint32_t count) override;
  Result<std::string> log(const Mark& now, uint32_t count) override;

  [[nodiscard]] size_t inserted() const { return breakpoints_.size(); }
  // From now on the run that reaches this instruction of the history fails, as a divergence would.
  void fail_at(uint64_t step) { fail_at_ = step; }

 private:
  [[nodiscard]] const ToyMachine& machine() const { return diverted_ ? *diverted_ : history_.states[at_]; }
  Result<StopEvent> run(Direction direction, std::optional<VcpuId> stepped, RunListener& listener);
  // The next step of the recorded order, or of the diversion's. Nothing: there is none.
  [[nodiscard]] std::optional<VcpuId> next_vcpu() const;
  Result<std::optional<ToyAccess>> advance(VcpuId vcpu);
  [[nodiscard]] std::optional<StopEvent> breakpoint_at(VcpuId vcpu) const;
  [[nodiscard]] std::optional<StopEvent> watchpoint_of(VcpuId vcpu,
                                                       const std::optional<ToyAccess>& access) const;
  Status check_diverted() const;

  const ToyHistory& history_ = toy_history();
  const std::chrono::microseconds pause_;
  uint64_t at_ = 0;
  std::optional<ToyMachine> diverted_;
  std::set<Breakpoint> breakpoints_;
  std::vector<Checkpoint> checkpoints_;
  std::optional<uint64_t> fail_at_;
};

}  // namespace reprise::replay::gdb
