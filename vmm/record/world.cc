#include "vmm/record/world.h"

#include <algorithm>

#include "base/time.h"

namespace reprise::vmm {

World::World(std::span<const std::unique_ptr<ept::Mailbox>> mailboxes, double pace)
    : busy_pace_(pace),
      mailboxes_(mailboxes),
      timers_(mailboxes.size() + 1),
      paced_from_ns_(monotonic_ns()),
      pace_(pace) {
  running_.resume();
  timekeeper_ = std::thread([this] { keep_time(); });
}

World::~World() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  timekeeper_.join();
}

uint64_t World::now_ns() const {
  MutexLock lock(mutex_);
  return now_locked();
}

uint64_t World::now_locked() const {
  const uint64_t passed = monotonic_ns() - paced_from_ns_;
  return paced_virtual_ns_ +
         (pace_ == 1 ? passed : static_cast<uint64_t>(static_cast<double>(passed) * pace_));
}

void World::pause() {
  MutexLock lock(mutex_);
  paused_ = true;
  running_.pause();
  set_pace();
}

void World::resume() {
  MutexLock lock(mutex_);
  paused_ = false;
  running_.resume();
  set_pace();
}

// A guest that only waits waits as long as it says, whatever the pace of its work.
void World::set_pace() {
  const double pace = paused_ ? 0 : all_idle() ? 1 : busy_pace_;
  if (pace == pace_) return;
  const uint64_t host = monotonic_ns();
  paced_virtual_ns_ = now_locked();
  paced_from_ns_ = host;
  pace_ = pace;
  changed_.notify_all();
}

void World::send(VcpuId to, const log::Arrival& what) {
  ept::Mailbox& mailbox = *mailboxes_[to.raw];
  mailbox.post(ept::Delivery{what, 0});
  mailbox.kick();
}

void World::arm_timer(VcpuId vcpu, const ArmTimer& setting) {
  MutexLock lock(mutex_);
  start(timers_[vcpu.raw], setting);
}

void World::start(Timer& timer, const ArmTimer& setting) {
  timer.running = true;
  timer.setting = setting;
  timer.due_ns = now_locked() + setting.delay_ns;
  ++timer.generation;
  changed_.notify_all();
}

void World::set_tick(const SetTick& tick) {
  MutexLock lock(mutex_);
  Timer& timer = timers_.back();
  if (tick.delay_ns != 0) return start(timer, {.delay_ns = tick.delay_ns, .period_ns = tick.period_ns});
  timer.running = false;
  ++timer.generation;
}

void World::type(uint8_t byte) {
  send(VcpuId(0), log::Input{log::InputDevice::kConsole, std::string(1, static_cast<char>(byte))});
}

void World::expect_typing(bool expected) {
  MutexLock lock(mutex_);
  typing_ = expected;
  if (!expected) check_idle();
}

void World::disarm_timer(VcpuId vcpu) {
  MutexLock lock(mutex_);
  timers_[vcpu.raw].running = false;
  ++timers_[vcpu.raw].generation;
}

bool World::is_current(VcpuId vcpu, const ept::Delivery& delivery) const {
  const auto* input = std::get_if<log::Input>(&delivery.what);
  const auto* message = std::get_if<log::ApicMessage>(&delivery.what);
  const bool tick = input != nullptr && input->device == log::InputDevice::kIntervalTimer;
  if (!tick && (message == nullptr || message->kind != log::ApicMessageKind::kTimer)) return true;
  MutexLock lock(mutex_);
  return delivery.timer_generation == (tick ? timers_.back() : timers_[vcpu.raw]).generation;
}

uint64_t World::timer_count(VcpuId vcpu) const {
  MutexLock lock(mutex_);
  const Timer& timer = timers_[vcpu.raw];
  const uint64_t now = now_locked();
  if (!timer.running || timer.due_ns <= now) return 0;
  return (timer.due_ns - now) / std::max(1u, timer.setting.count_ns);
}

bool World::request_stop(const MachineStop& stop) {
  MutexLock lock(mutex_);
  return stop_locked(stop);
}

bool World::stop_locked(const MachineStop& stop) {
  if (stop_.has_value()) return false;
  stop_ = stop;
  for (const auto& mailbox : mailboxes_) {
    mailbox->post(ept::StopRequest{});
    mailbox->kick();
  }
  changed_.notify_all();
  return true;
}

std::optional<MachineStop> World::stop() const {
  MutexLock lock(mutex_);
  return stop_;
}

void World::enter_idle(VcpuId vcpu) {
  MutexLock lock(mutex_);
  idle_ |= 1u << vcpu.raw;
  set_pace();
  check_idle();
}

void World::leave_idle(VcpuId vcpu) {
  MutexLock lock(mutex_);
  idle_ &= ~(1u << vcpu.raw);
  set_pace();
}

bool World::all_idle() const {
  const uint32_t all = mailboxes_.size() == 32 ? ~0u : (1u << mailboxes_.size()) - 1;
  return idle_ == all;
}

void World::check_idle() {
  if (!all_idle() || typing_) return;
  if (std::any_of(timers_.begin(), timers_.end(), [](const Timer& timer) { return timer.running; })) return;
  // A vCPU takes its mail only after leave_idle(): an idle one with mail is about to wake.
  for (const auto& mailbox : mailboxes_)
    if (mailbox->has_letters()) return;
  stop_locked({StopReason::kAllHalted, 0, std::string(kNothingCanWake)});
}

void World::post(size_t timer, uint64_t generation) {
  const bool tick = timer == mailboxes_.size();
  ept::Mailbox& mailbox = *mailboxes_[tick ? 0 : timer];
  if (tick)
    mailbox.post(ept::Delivery{log::Input{log::InputDevice::kIntervalTimer, {}}, generation});
  else
    mailbox.post(ept::Delivery{log::ApicMessage{log::ApicMessageKind::kTimer, 0}, generation});
  mailbox.kick();
}

void World::keep_time() {
  MutexLock lock(mutex_);
  while (!closing_) {
    if (paused_) {
      changed_.wait(mutex_);
      continue;
    }
    const uint64_t now = now_locked();
    uint64_t next = ~0ull;
    for (size_t i = 0; i < timers_.size(); ++i) {
      Timer& timer = timers_[i];
      if (!timer.running) continue;
      if (timer.due_ns <= now) {
        post(i, timer.generation);
        timer.running = timer.setting.period_ns != 0;
        // Ticks that the host was too slow for are left out, as a real timer's interrupts merge in the IRR.
        timer.due_ns = std::max(timer.due_ns + timer.setting.period_ns, now + timer.setting.period_ns / 2);
      }
      if (timer.running) next = std::min(next, timer.due_ns);
    }
    if (next == ~0ull) {
      changed_.wait(mutex_);
    } else {
      const auto left = static_cast<uint64_t>(static_cast<double>(next - now) / pace_);
      changed_.wait_until(
          mutex_, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(monotonic_ns() + left)));
    }
  }
}

}  // namespace reprise::vmm
