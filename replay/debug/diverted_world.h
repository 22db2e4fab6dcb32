// What is around the vCPUs of a machine that has left the recorded run: time, timers and messages, as the
// recorder's world has them (vmm/record/world.h), but as a function of what the vCPUs do.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/event.h"
#include "vmm/device/device.h"
#include "vmm/journal.h"

namespace reprise::replay {

// Threads: confined to the one that runs the vCPUs.
class DivertedWorld {
 public:
  // `last_time`: the last answer of log::Source::kTime that the recorded run had; asked when somebody looks
  // at a clock.
  DivertedWorld(uint32_t vcpus, std::function<Result<uint64_t>()> last_time)
      : last_time_(std::move(last_time)), letters_(vcpus), timers_(vcpus + 1) {}

  // What the time is, in nanoseconds; each look takes one microsecond. Errors: those of `last_time`.
  Result<uint64_t> look_at_clock();
  // So much time goes by, and timers that are due send their messages.
  void pass(uint64_t ns);
  // It goes on until the next timer is due. False: none runs.
  bool pass_to_next_timer();

  // What a vCPU does to the world.
  void perform(VcpuId vcpu, const vmm::Effect& effect);
  void stop(const vmm::MachineStop& stop);
  // Counts left until this vCPU's timer fires; 0: it does not run.
  [[nodiscard]] uint64_t timer_count(VcpuId vcpu) const;

  // The next message for this vCPU.
  std::optional<log::Arrival> take_letter(VcpuId vcpu);
  [[nodiscard]] bool has_letters(VcpuId vcpu) const { return !letters_[vcpu.raw].empty(); }
  // Why the machine has stopped, a sentence; nothing: it has not.
  [[nodiscard]] const std::optional<std::string>& stopped() const { return stop_; }

 private:
  struct Timer {
    std::optional<uint64_t> due_ns;  // nothing: it does not run
    vmm::ArmTimer setting;
  };
  void ring();
  void start(size_t timer, const vmm::ArmTimer& setting);
  void cancel(size_t timer);
  [[nodiscard]] VcpuId receiver(size_t timer) const;
  [[nodiscard]] log::Arrival message(size_t timer) const;

  std::function<Result<uint64_t>()> last_time_;
  std::optional<uint64_t> began_ns_;               // virtual time when the recorded run was left
  uint64_t passed_ns_ = 0;                         // since then
  std::vector<std::deque<log::Arrival>> letters_;  // of each vCPU
  std::vector<Timer> timers_;                      // one a vCPU, then the interval timer
  std::optional<std::string> stop_;
};

}  // namespace reprise::replay
