// Recordings for people and for other programs: `reprise dump`, divergence reports.
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/units.h"
#include "log/event.h"

namespace reprise::log {

std::string_view name(Right right);           // "none", "read", "write"
std::string_view name(ApicMessageKind kind);  // "fixed", "nmi", "init", "startup", "timer"

// One line without a newline, in columns: stops, ticks, kind, details. A gain shows at most 8 of its pages.
std::string to_text(const Event& event);

// {"stops": 1, "ticks": 2, "kind": "gain", ...}: digests are strings of 16 hexadecimal digits, all else
// numbers.
nlohmann::json to_json(const Event& event);

// A manifest or a final record, under the names of schema.proto; 64-bit numbers are numbers.
nlohmann::json to_json(const google::protobuf::Message& message);

}  // namespace reprise::log
