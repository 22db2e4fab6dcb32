// Whether a vCPU goes round in a loop that waits for what another vCPU has to do.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

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
  // The vCPU is at a position, with these registers (a digest). True: it spins; the look is over. Requires:
  // is_on().
  bool note(uint64_t registers) {
    const bool again = std::find(seen_.begin(), seen_.end(), registers) != seen_.end();
    seen_[--left_] = registers;
    if (again) left_ = 0;
    return again;
  }

 private:
  // A loop that waits has one to three safepoints: its head, and a function or two.
  static constexpr size_t kLooks = 4;
  std::array<std::optional<uint64_t>, kLooks> seen_{};
  size_t left_ = 0;
};

}  // namespace reprise::ept
