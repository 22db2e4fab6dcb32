#include "analysis/suppressions.h"

#include <algorithm>

namespace reprise::analysis {
namespace {

constexpr std::string_view kAnywhere = "race:", kTop = "race_top:";

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t begin = line.find_first_not_of(kBlank);
  return begin == std::string_view::npos ? std::string_view()
                                         : line.substr(begin, line.find_last_not_of(kBlank) - begin + 1);
}

// All of it: only * is special.
bool matches_all(std::string_view pattern, std::string_view name) {
  size_t at = 0, in = 0, star = std::string_view::npos, from = 0;
  while (in < name.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      from = in;
    } else if (at < pattern.size() && pattern[at] == name[in]) {
      ++at;
      ++in;
    } else if (star != std::string_view::npos) {
      at = star + 1;
      in = ++from;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', at) == std::string_view::npos;
}

bool covers(const Suppressions::Line& line, const RacingAccess& access) {
  if (!line.only_top && matches(line.pattern, access.object)) return true;
  for (const auto& call : access.stack) {
    for (const CodeFrame& frame : call) {
      if (matches(line.pattern, frame.function) || matches(line.pattern, frame.file)) return true;
      if (line.only_top) return false;
    }
  }
  return false;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  if (name.empty()) return false;
  const bool begins = pattern.starts_with('^'), ends = pattern.ends_with('$');
  std::string whole(begins ? "" : "*");
  whole += pattern.substr(begins ? 1 : 0, pattern.size() - (begins ? 1 : 0) - (ends ? 1 : 0));
  if (!ends) whole += '*';
  return matches_all(whole, name);
}

Result<Suppressions> Suppressions::parse(std::string_view text) {
  Suppressions suppressions;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.starts_with('#')) continue;
    const bool only_top = line.starts_with(kTop);
    const std::string_view kind = only_top ? kTop : kAnywhere;
    if (!line.starts_with(kind) || line.size() == kind.size() || line.substr(kind.size()) == "^$")
      return fail(ErrorCode::kUsage,
                  "line {} of the suppressions is '{}': it has to be race:PATTERN or race_top:PATTERN",
                  number, line);
    suppressions.lines_.push_back({std::string(line), std::string(line.substr(kind.size())), only_top});
  }
  return suppressions;
}

bool Suppressions::cover(const Race& race) {
  const auto line = std::ranges::find_if(
      lines_, [&](const Line& each) { return covers(each, race.first) || covers(each, race.second); });
  if (line == lines_.end()) return false;
  ++line->races;
  return true;
}

}  // namespace reprise::analysis
