// The place of an event in the global order, for those that have one.
#pragma once

#include <optional>

#include "log/event.h"

namespace reprise::log {

// The ticket of a Gain or a Loss; nothing for other events.
inline std::optional<Ticket> ticket_of(const Event& event) {
  if (const auto* gain = std::get_if<Gain>(&event.what)) return gain->ticket;
  if (const auto* loss = std::get_if<Loss>(&event.what)) return loss->ticket;
  return std::nullopt;
}

}  // namespace reprise::log
