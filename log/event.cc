#include "log/event.h"

#include <xxhash.h>

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

std::string_view name(InputDevice device) {
  switch (device) {
    case InputDevice::kIntervalTimer:
      return "interval-timer";
    case InputDevice::kConsole:
      return "console";
  }
  return "unknown";
}

uint64_t digest_of(const Input& input) {
  if (input.bytes.empty()) return 0;
  if (input.bytes.size() == 1) return static_cast<uint8_t>(input.bytes.front());
  return XXH3_64bits(input.bytes.data(), input.bytes.size());
}

std::string_view kind_name(const Event& event) {
  static constexpr std::array<std::string_view, 11> kNames = {"gain",   "loss",       "value",     "message",
                                                              "digest", "end",        "spin",      "machine",
                                                              "input",  "breakpoint", "preemption"};
  static_assert(kNames.size() == std::variant_size_v<decltype(Event::what)>);
  return kNames[event.what.index()];
}

}  // namespace reprise::log
