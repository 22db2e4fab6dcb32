// The user's terminal as the guest's: each key goes through as it is.
#pragma once

#include <termios.h>

#include <optional>

#include "cli/interrupt.h"

namespace reprise::cli {

// The key that ends the run: Ctrl-].
inline constexpr char kEscapeKey = 0x1d;

// While it lives, standard input passes each key on at once, and does not echo. Nothing changes if that is no
// terminal, or not `wanted`.
class RawTerminal {
 public:
  explicit RawTerminal(bool wanted);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  [[nodiscard]] bool is_terminal() const { return saved_.has_value(); }

 private:
  void make_raw() const;
  void restore() const;

  std::optional<termios> saved_;
  const OnForcedEnd forced_end_{[this] { restore(); }};
  const OnSuspend suspend_{[this] { restore(); }, [this] { make_raw(); }};
};

}  // namespace reprise::cli
