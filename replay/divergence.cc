#include "replay/divergence.h"

#include <fmt/format.h>

#include "log/event_text.h"

namespace reprise::replay {

std::string to_text(const Divergence& divergence) {
  std::string text = fmt::format(
      "the replay differs from the recording at vCPU {}, stop {}, tick {}\n"
      "  recorded: {}\n"
      "  replayed: {}\n",
      divergence.vcpu.raw, divergence.at.stops, divergence.at.ticks.raw, divergence.expected,
      divergence.found);
  if (!divergence.recent.empty())
    text += fmt::format("  the {} events of this vCPU before it:\n", divergence.recent.size());
  for (const auto& event : divergence.recent) text += "    " + log::to_text(event) + "\n";
  text.pop_back();
  if (divergence.recent.empty()) return text;
  return text;
}

Error to_error(const Divergence& divergence) {
  return {ErrorCode::kDivergence, to_text(divergence), 0};
}

}  // namespace reprise::replay
