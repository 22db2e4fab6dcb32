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
  // The n-th question, from 1 on, to which the answer may be that others come first, or that the machine
  // stops, is answered so; 0: none is. It takes nothing from the queues.
  uint64_t later_at = 0;
  uint64_t leave_at = 0;
  // The n-th question is answered as by a replay that goes on with other vCPUs: what was asked for is
  // granted, this token has been lost since, and others come first. 0: none is.
  uint64_t lost_at = 0;
  PageNumber lost;
  uint64_t questions = 0;

  // Without an answer: nothing happens, everything is granted.
  std::deque<AsyncEvent> async;
  std::deque<Acquired> acquires;
  std::deque<UserStop> user_stops;
  std::deque<AsyncEvent> when_it_waits;  // moved to `async` by wait(), one by one
  bool is_kicked = false;
  bool may_spin = false;
  bool over = false;
  bool leaves = false;  // at each position from now on
  Ticks stop = kNoTick;
  // Whose rights are granted; null: none.
  ept::View* view = nullptr;

  std::vector<std::vector<PageRight>> asked;  // acquire()
  std::vector<bool> asked_again;
  std::vector<Position> stops;  // stopped()
  std::vector<Effect> effects;
  std::vector<MachineStop> stopped_machine;
  unsigned waits = 0, yields = 0, values = 0, ends = 0, stopped_in_user = 0;

  Result<std::optional<AsyncEvent>> next_async() override {
    if (is(later_at)) return std::optional<AsyncEvent>(Later{});
    if (questions == leave_at || leaves) return std::optional<AsyncEvent>(Leave{});
    if (async.empty()) return std::optional<AsyncEvent>();
    return std::optional(take(async));
  }
  Status wait() override {
    ++waits;
    if (!when_it_waits.empty()) async.push_back(take(when_it_waits));
    return {};
  }
  Ticks next_stop() override { return stop; }
  void yield() override { ++yields; }
  [[nodiscard]] bool kicked() const override { return is_kicked; }
  [[nodiscard]] bool may_stop_in_user_mode() const override { return may_spin; }
  Result<std::optional<UserStop>> next_user_stop() override {
    if (user_stops.empty()) return std::optional<UserStop>();
    return std::optional(take(user_stops));
  }
  Status stopped_in_user_mode(const UserStop& /*stop*/) override {
    ++stopped_in_user;
    return {};
  }
  Result<Acquired> acquire(std::span<const PageRight> needed, bool again) override {
    if (is(later_at)) return Acquired::kLater;
    if (questions == leave_at) return Acquired::kStopping;
    asked.emplace_back(needed.begin(), needed.end());
    asked_again.push_back(again);
    const Acquired answer = acquires.empty() ? Acquired::kGranted : take(acquires);
    if (answer == Acquired::kGranted && view != nullptr)
      for (const auto& need : needed) TRY(view->grant({&need.page, 1}, need.right));
    if (questions != lost_at || needed[0].page == lost) return answer;
    TRY(view->revoke(lost, Right::kNone));
    return Acquired::kLater;
  }
  bool is_over() override { return over; }
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
  void stop_machine(const MachineStop& stop) override {
    stopped_machine.push_back(stop);
    leaves = true;
  }
  Result<uint64_t> value(log::Source /*source*/) override { return ++values; }

 private:
  // A question is asked; whether it is this one.
  bool is(uint64_t number) { return ++questions == number; }
  template <typename T>
  static T take(std::deque<T>& queue) {
    T first = std::move(queue.front());
    queue.pop_front();
    return first;
  }
};

}  // namespace reprise::vmm
