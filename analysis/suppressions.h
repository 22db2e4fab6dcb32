// Races that somebody does not want to hear of, in the format of ThreadSanitizer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "analysis/races.h"

namespace reprise::analysis {

// Lines "race:PATTERN" (a function, file or object anywhere in either backtrace) and "race_top:PATTERN" (in
// the innermost functions only). * stands for any characters, ^ and $ for beginning and end; else the pattern
// is a part of the name. Empty lines and those that begin with # say nothing. Threads: immutable but for the
// counts.
class Suppressions {
 public:
  Suppressions() = default;
  // Errors: kUsage, naming the line.
  static Result<Suppressions> parse(std::string_view text);

  // Whether one covers the race; the first that does counts it.
  bool cover(const Race& race);

  struct Line {
    std::string text;
    std::string pattern;
    bool only_top = false;
    uint64_t races = 0;  // covered so far
  };
  [[nodiscard]] const std::vector<Line>& lines() const { return lines_; }

 private:
  std::vector<Line> lines_;
};

// Whether `pattern` is in `name`, as above.
[[nodiscard]] bool matches(std::string_view pattern, std::string_view name);

}  // namespace reprise::analysis
