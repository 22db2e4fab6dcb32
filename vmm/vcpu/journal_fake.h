// A journal that a unit test plays: answers from queues, and what it was told.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "vmm/journal.h"

namespace reprise::vmm {

class JournalFake final : public Journal {
 public:
  // Without an answer: nothing happens, everything is granted.
  std::deque<AsyncEvent> async;
  std::deque<Acquired> acquires;
  std::deque<log::Spin> spins;
  std::deque<bool> others;  // others_first()
  bool is_kicked = false;
  bool may_spin = false;
  bool over = false;
  Ticks stop = kNoTick;
  // Whose rights are granted; null: none.
  ept::View* view = nullptr;

  std::vector<std::vector<PageRight>> asked;  // acquire()
  std::vector<bool> asked_again;
  std::vector<Position> stops;  // stopped()
  std::vector<Effect> effects;
  std::vector<MachineStop> stopped_machine;
  unsigned waits = 0, yields = 0, values = 0, ends = 0, stopped_spins = 0;

  Result<std::optional<AsyncEvent>> next_async() override {
    if (async.empty()) return std::optional<AsyncEvent>();
    return std::optional(take(async));
  }
  Status wait() override {
    ++waits;
    return {};
  }
  Ticks next_stop() override { return stop; }
  void yield() override { ++yields; }
  [[nodiscard]] bool kicked() const override { return is_kicked; }
  [[nodiscard]] bool may_stop_spin() const override { return may_spin; }
  Result<std::optional<log::Spin>> next_spin() override {
    if (spins.empty()) return std::optional<log::Spin>();
    return std::optional(take(spins));
  }
  Status stopped_spin(const log::Spin& /*spin*/) override {
    ++stopped_spins;
    return {};
  }
  Result<Acquired> acquire(std::span<const PageRight> needed, bool again) override {
    asked.emplace_back(needed.begin(), needed.end());
    asked_again.push_back(again);
    const Acquired answer = acquires.empty() ? Acquired::kGranted : take(acquires);
    if (answer == Acquired::kGranted && view != nullptr)
      for (const auto& need : needed) TRY(view->grant({&need.page, 1}, need.right));
    return answer;
  }
  bool is_over() override { return over; }
  [[nodiscard]] bool others_first() const override {
    return !others.empty() && take(const_cast<std::deque<bool>&>(others));
  }
  Status stopped(uint64_t /*registers*/) override {
    stops.push_back(at());
    return {};
  }
  Status compared_machine(uint64_t /*digest*/) override { return {}; }
  Status ended(uint64_t /*registers*/) override {
    ++ends;
    return {};
  }
  void perform(const Effect& effect) override { effects.push_back(effect); }
  void stop_machine(const MachineStop& stop) override { stopped_machine.push_back(stop); }
  Result<uint64_t> value(log::Source /*source*/) override { return ++values; }

 private:
  template <typename T>
  static T take(std::deque<T>& queue) {
    T first = std::move(queue.front());
    queue.pop_front();
    return first;
  }
};

}  // namespace reprise::vmm
