// The world outside of a recorded machine: host time, timers, messages between vCPUs, and who wants the
// machine to stop. A replayed machine has none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/stopwatch.h"
#include "base/units.h"
#include "ept/mailbox.h"
#include "vmm/device/device.h"
#include "vmm/journal.h"

namespace reprise::vmm {

// Threads: synchronised inside.
class World {
 public:
  // One mailbox a clock; the clocks outlive the world.
  // `pace`: how many nanoseconds of virtual time pass in one of the host's while some vCPU has something to
  // execute, 0 to 1.
  explicit World(std::span<const std::unique_ptr<ept::Mailbox>> mailboxes, double pace = 1);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Virtual time: nanoseconds since the machine began. Never goes back.
  [[nodiscard]] uint64_t now_ns() const EXCLUDES(mutex_);
  // Host time since the machine began, without pauses, in nanoseconds.
  [[nodiscard]] uint64_t elapsed_ns() const { return running_.elapsed_ns(); }
  // Virtual time stands still, and no timer fires, until resume().
  void pause();
  void resume();

  void send(VcpuId to, const log::Arrival& what);

  // The timer of one vCPU's local APIC. Each arming or disarming makes earlier timer messages void.
  void arm_timer(VcpuId vcpu, const ArmTimer& timer);
  void disarm_timer(VcpuId vcpu);
  // The machine's interval timer. Its messages go to vCPU 0.
  void set_tick(const SetTick& tick);
  // A byte was typed at the console. It goes to vCPU 0.
  void type(uint8_t byte);
  // While somebody may type, a guest whose vCPUs all halt is not at its end.
  void expect_typing(bool expected);
  [[nodiscard]] bool is_current(VcpuId vcpu, const ept::Delivery& delivery) const;
  // Counts left until the timer fires; 0 if it is not running.
  [[nodiscard]] uint64_t timer_count(VcpuId vcpu) const;

  // The first reason wins; every vCPU is told. False: there was one.
  bool request_stop(const MachineStop& stop);
  [[nodiscard]] std::optional<MachineStop> stop() const;
  // Around a vCPU's waiting for mail with nothing to execute. When all vCPUs idle, no mail is under way and
  // no timer runs, nothing can ever happen again: the machine is stopped with kAllHalted.
  void enter_idle(VcpuId vcpu);
  void leave_idle(VcpuId vcpu);

 private:
  struct Timer {
    bool running = false;
    uint64_t due_ns = 0;  // virtual time
    ArmTimer setting;
    uint64_t generation = 0;
  };
  void keep_time();
  void start(Timer& timer, const ArmTimer& setting) REQUIRES(mutex_);
  void post(size_t timer, uint64_t generation) REQUIRES(mutex_);
  bool stop_locked(const MachineStop& stop) REQUIRES(mutex_);
  void check_idle() REQUIRES(mutex_);

  [[nodiscard]] uint64_t now_locked() const REQUIRES(mutex_);
  void set_pace() REQUIRES(mutex_);
  [[nodiscard]] bool all_idle() const REQUIRES(mutex_);

  Stopwatch running_;
  const double busy_pace_;
  std::span<const std::unique_ptr<ept::Mailbox>> mailboxes_;
  mutable Mutex mutex_;  // taken before a mailbox's own
  Condition changed_;
  std::vector<Timer> timers_ GUARDED_BY(mutex_);  // one a vCPU, then the interval timer
  bool typing_ GUARDED_BY(mutex_) = false;
  bool paused_ GUARDED_BY(mutex_) = false;
  std::optional<MachineStop> stop_ GUARDED_BY(mutex_);
  uint32_t idle_ GUARDED_BY(mutex_) = 0;
  // Virtual time is paced from this moment on: host time, virtual time, and what one nanosecond of the first
  // is of the second.
  uint64_t paced_from_ns_ GUARDED_BY(mutex_);
  uint64_t paced_virtual_ns_ GUARDED_BY(mutex_) = 0;
  double pace_ GUARDED_BY(mutex_);
  bool closing_ GUARDED_BY(mutex_) = false;
  std::thread timekeeper_;
};

}  // namespace reprise::vmm
