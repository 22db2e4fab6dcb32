#include "replay/timeline/mark.h"

#include <fmt/format.h>

#include <charconv>

namespace reprise::replay {

std::string to_text(const Mark& mark) {
  const auto& [stops, ticks, steps] = mark.at;
  if (steps != 0) return fmt::format("{}.{}.{}.{}", mark.event, stops, ticks.raw, steps);
  if (ticks.raw != 0) return fmt::format("{}.{}.{}", mark.event, stops, ticks.raw);
  if (stops != 0) return fmt::format("{}.{}", mark.event, stops);
  return fmt::format("{}", mark.event);
}

Result<Mark> parse_mark(std::string_view text) {
  Mark mark;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (uint64_t* part : {&mark.event, &mark.at.stops, &mark.at.ticks.raw, &mark.at.steps}) {
    const auto [rest, error] = std::from_chars(at, end, *part);
    if (error != std::errc()) break;
    if (rest == end) return mark;
    if (*rest != '.') break;
    at = rest + 1;
  }
  return fail(
      ErrorCode::kUsage,
      "'{}' is no mark; a mark is a number, or up to four with points between, as 'monitor when' prints",
      text);
}

}  // namespace reprise::replay
