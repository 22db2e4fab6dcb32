#include "log/event.h"

#include <array>

namespace reprise::log {

std::string_view name(Source source) {
  switch (source) {
    case Source::kTime:
      return "time";
    case Source::kTimerCount:
      return "timer-count";
    case Source::kConsoleInput:
      return "console-input";
    case Source::kConsoleStatus:
      return "console-status";
    case Source::kRandom:
      return "random";
  }
  return "unknown";
}

std::string_view kind_name(const Event& event) {
  static constexpr std::array<std::string_view, 8> kNames = {"gain",   "loss", "value", "message",
                                                             "digest", "end",  "spin",  "machine"};
  static_assert(kNames.size() == std::variant_size_v<decltype(Event::what)>);
  return kNames[event.what.index()];
}

}  // namespace reprise::log
