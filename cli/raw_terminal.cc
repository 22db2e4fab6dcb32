#include "cli/raw_terminal.h"

#include <unistd.h>

namespace reprise::cli {

RawTerminal::RawTerminal(bool wanted) {
  termios settings{};
  if (!wanted || ::tcgetattr(STDIN_FILENO, &settings) != 0) return;
  saved_ = settings;
  make_raw();
}

void RawTerminal::make_raw() const {
  if (!saved_.has_value()) return;
  termios settings = *saved_;
  ::cfmakeraw(&settings);
  settings.c_oflag |= OPOST;  // our own messages end their lines as always
  (void)::tcsetattr(STDIN_FILENO, TCSANOW, &settings);
}

RawTerminal::~RawTerminal() {
  restore();
}

void RawTerminal::restore() const {
  if (saved_.has_value()) (void)::tcsetattr(STDIN_FILENO, TCSADRAIN, &*saved_);
}

}  // namespace reprise::cli
