#include "replay/debug/diverted_world.h"

#include <fmt/format.h>

#include <algorithm>

namespace reprise::replay {

Result<uint64_t> DivertedWorld::look_at_clock() {
  constexpr uint64_t kLookNs = 1000;
  if (!began_ns_.has_value()) {
    TRY_ASSIGN(began_ns_, last_time_());
  }
  passed_ns_ += kLookNs;
  return *began_ns_ + passed_ns_;
}

void DivertedWorld::pass(uint64_t ns) {
  passed_ns_ += ns;
  ring();
}

bool DivertedWorld::pass_to_next_timer() {
  std::optional<uint64_t> next;
  for (const Timer& timer : timers_)
    if (timer.due_ns.has_value()) next = std::min(next.value_or(*timer.due_ns), *timer.due_ns);
  if (!next.has_value()) return false;
  passed_ns_ = std::max(passed_ns_, *next);
  ring();
  return true;
}

void DivertedWorld::ring() {
  for (size_t i = 0; i < timers_.size(); ++i) {
    Timer& timer = timers_[i];
    if (!timer.due_ns.has_value() || *timer.due_ns > passed_ns_) continue;
    letters_[receiver(i).raw].push_back(message(i));
    timer.due_ns.reset();
    if (timer.setting.period_ns != 0) timer.due_ns = passed_ns_ + timer.setting.period_ns;
  }
}

void DivertedWorld::perform(VcpuId vcpu, const vmm::Effect& effect) {
  if (const auto* send = std::get_if<vmm::SendMessage>(&effect)) {
    if (send->destination.raw < letters_.size()) letters_[send->destination.raw].push_back(send->message);
  } else if (const auto* arm = std::get_if<vmm::ArmTimer>(&effect)) {
    start(vcpu.raw, *arm);
  } else if (std::holds_alternative<vmm::DisarmTimer>(effect)) {
    cancel(vcpu.raw);
  } else if (const auto* tick = std::get_if<vmm::SetTick>(&effect)) {
    cancel(letters_.size());
    if (tick->delay_ns != 0)
      start(letters_.size(), {.delay_ns = tick->delay_ns, .period_ns = tick->period_ns});
  }
}

void DivertedWorld::stop(const vmm::MachineStop& stop) {
  stop_ = stop.reason == vmm::StopReason::kGuestExit
              ? fmt::format("the guest switches the machine off, with status {}", stop.status)
              : stop.message;
}

void DivertedWorld::start(size_t timer, const vmm::ArmTimer& setting) {
  cancel(timer);
  timers_[timer] = {passed_ns_ + setting.delay_ns, setting};
}

// What it has sent and nobody has taken is void.
void DivertedWorld::cancel(size_t timer) {
  timers_[timer].due_ns.reset();
  std::erase(letters_[receiver(timer).raw], message(timer));
}

VcpuId DivertedWorld::receiver(size_t timer) const {
  return VcpuId(timer == letters_.size() ? 0 : static_cast<uint32_t>(timer));
}

log::Arrival DivertedWorld::message(size_t timer) const {
  if (timer == letters_.size()) return log::Input{log::InputDevice::kIntervalTimer, {}};
  return log::ApicMessage{log::ApicMessageKind::kTimer, 0};
}

uint64_t DivertedWorld::timer_count(VcpuId vcpu) const {
  const Timer& timer = timers_[vcpu.raw];
  if (!timer.due_ns.has_value() || *timer.due_ns <= passed_ns_) return 0;
  return (*timer.due_ns - passed_ns_) / std::max(1u, timer.setting.count_ns);
}

std::optional<log::Arrival> DivertedWorld::take_letter(VcpuId vcpu) {
  auto& letters = letters_[vcpu.raw];
  if (letters.empty()) return std::nullopt;
  const log::Arrival letter = letters.front();
  letters.pop_front();
  return letter;
}

}  // namespace reprise::replay
