// What GDB sees of a recording: the debug target over the timeline.
#pragma once

#include <memory>
#include <vector>

#include "replay/debug/diversion.h"
#include "replay/debug/stop_search.h"
#include "replay/gdb/debug_target.h"
#include "vmm/kvm/cpu_state.h"

namespace reprise::replay::gdb {

// Threads: confined to the timeline's thread.
class TimelineTarget final : public DebugTarget {
 public:
  // Both outlive it. Errors: kHost.
  static Result<std::unique_ptr<TimelineTarget>> create(Timeline& timeline, const log::Recording& recording);

  [[nodiscard]] uint32_t vcpu_count() const override { return timeline_.machine().vcpus(); }
  [[nodiscard]] std::string vcpu_state(VcpuId vcpu) const override;
  [[nodiscard]] Result<Registers> registers(VcpuId vcpu) const override;
  [[nodiscard]] size_t read(VcpuId vcpu, Gva address, std::span<uint8_t> out) const override;
  [[nodiscard]] size_t read_physical(VcpuId vcpu, Gpa address, std::span<uint8_t> out) const override;
  [[nodiscard]] Gpa ram_end() const override;
  [[nodiscard]] std::optional<Gpa> translate(VcpuId vcpu, Gva address) const override;

  [[nodiscard]] Mark now() const override { return in_diversion() ? diversion_->origin() : timeline_.now(); }
  [[nodiscard]] Mark begin() const override { return begin_; }
  [[nodiscard]] Mark end() const override { return {timeline_.end_event()}; }
  Status seek(const Mark& mark, Interruption& interruption) override;
  Result<StopEvent> resume(Direction direction, VcpuId diverted, RunListener& listener) override;
  Result<StopEvent> step(VcpuId vcpu, Direction direction, RunListener& listener) override;
  Status insert(const Breakpoint& breakpoint) override;
  Status remove(const Breakpoint& breakpoint) override;

  Status begin_diversion() override;
  Status end_diversion() override;
  [[nodiscard]] bool in_diversion() const override { return diversion_ != nullptr; }
  [[nodiscard]] std::string take_diverted_console() override {
    return in_diversion() ? diversion_->take_console() : "";
  }
  Status set_registers(VcpuId vcpu, const Registers& registers) override;
  Status write(VcpuId vcpu, Gva address, std::span<const uint8_t> bytes) override;
  Status write_physical(Gpa address, std::span<const uint8_t> bytes) override;

  Result<Checkpoint> make_checkpoint() override;
  [[nodiscard]] std::vector<Checkpoint> checkpoints() const override { return checkpoints_; }
  [[nodiscard]] std::optional<std::vector<Right>> rights(PageNumber page) const override;
  Result<std::optional<LastWrite>> last_write(Gpa address, Interruption& interruption) override;
  Result<uint64_t> digest() override { return timeline_.digest(); }

 private:
  TimelineTarget(Timeline& timeline, const log::Recording& recording)
      : timeline_(timeline), recording_(recording), begin_(timeline.now()), search_(timeline) {}
  // Gives this moment the next number.
  Checkpoint keep(const Mark& mark);
  // Runs `run`, asking meanwhile whether to come to an end.
  template <typename Run>
  Result<StopEvent> interruptibly(Interruption& interruption, Run run);

  // Errors: kUsage in a diversion, which has nothing of that.
  [[nodiscard]] Status check_recorded() const;
  // Errors: kUsage outside of a diversion.
  [[nodiscard]] Status check_diverted() const;

  Timeline& timeline_;
  const log::Recording& recording_;
  const Mark begin_;
  StopSearch search_;
  std::unique_ptr<Diversion> diversion_;
  std::vector<Checkpoint> checkpoints_;
  bool interrupted_ = false;
};

}  // namespace reprise::replay::gdb
