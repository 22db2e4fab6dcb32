// Whether a vCPU goes round in a loop that waits for what another vCPU has to do.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/units.h"

namespace reprise::ept {

// Looks at the registers at some positions in a row: where they come round, the loop changes nothing but
// memory, and most such loops change nothing at all. A guess, which decides only who executes when.
// Threads: confined to the vCPU's thread.
class SpinLook {
 public:
  void begin() {
    seen_.fill(std::nullopt);
    left_ = kLooks;
  }
  // Whether the next position is to be looked at, and to come soon.
  [[nodiscard]] bool is_on() const { return left_ > 0; }
  // The vCPU is at a position, with these registers (a digest). True: it spins. Then the look is over; and so
  // it is if the vCPU comes round with other registers: it computes. Requires: is_on().
  bool note(Gva rip, uint64_t registers) {
    const auto round = std::find_if(seen_.begin(), seen_.end(),
                                    [&](const auto& seen) { return seen.has_value() && seen->rip == rip; });
    const bool comes_round = round != seen_.end();
    const bool spins = comes_round && (*round)->registers == registers;
    seen_[--left_] = Seen{rip, registers};
    if (comes_round) left_ = 0;
    return spins;
  }

 private:
  struct Seen {
    Gva rip;
    uint64_t registers;
  };
  // A loop that waits has one to three safepoints: its head, and a function or two.
  static constexpr size_t kLooks = 4;
  std::array<std::optional<Seen>, kLooks> seen_{};
  size_t left_ = 0;
};

// When to look at a vCPU that has what another one waits for. A look costs some stops, and one that comes
// late has let it spin for nothing. What vCPUs do between two waits takes about as long each time: so the
// first look comes a little later than one that found it computing the last times. Nanoseconds, since the
// vCPU got what is wanted. Threads: confined to the thread of who waits.
class SpinForecast {
 public:
  static constexpr uint64_t kAnswer = 500'000;  // in which a look is over, where KVM is software

  [[nodiscard]] uint64_t first_look() const { return expected_; }
  // After one at `at` that found it computing.
  [[nodiscard]] static uint64_t next_look(uint64_t at) { return std::max(at + at / 2, at + kAnswer); }
  // It spun at the first look, perhaps for long. The more often so, the sooner is the next one.
  void spun_at_once() {
    ++streak_;
    computing_ -= computing_ >> std::max(kSlowest - static_cast<int>(streak_ / 2), 1);
    const uint64_t least = std::max(computing_ + computing_ / 4, kSoonest);
    if (expected_ > least) expected_ -= (expected_ - least) / 2;
  }
  // It computed at `at`. Once is no habit, and the host may have been busy: so this rises in steps.
  void computed(uint64_t at) {
    streak_ = 0;
    computing_ = std::min(at, 2 * computing_ + kSoonest);
    expected_ = std::max(computing_ + computing_ / 4, kSoonest);
  }

 private:
  static constexpr uint64_t kSoonest = 25'000;
  static constexpr int kSlowest = 6;
  uint64_t expected_ = kSoonest;
  uint64_t computing_ = 0;
  unsigned streak_ = 0;
};

}  // namespace reprise::ept
