// Text that came from a recording, a guest or a file, made fit for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace reprise {

// `text` in one line of valid UTF-8. What a terminal would obey instead of showing it is written as an escape
// sequence: control characters and bytes that are no UTF-8 as \xNN (a newline as \n, a tab as \t), Unicode's
// invisible format and direction characters as \u{NNNN}. All else stays as it is, backslashes too.
std::string printable(std::string_view text);

// The same, but newlines stay: for messages of several lines.
std::string printable_lines(std::string_view text);

}  // namespace reprise
