// What a recording consists of: `reprise info`.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "log/recording_reader.h"

namespace reprise::log {

struct KindSummary {
  std::string kind;
  uint64_t events = 0;
  uint64_t bytes = 0;  // encoded, before compression
};

struct VcpuSummary {
  uint64_t events = 0;
  uint64_t blocks = 0;
  uint64_t raw_bytes = 0;   // before compression
  uint64_t file_bytes = 0;  // of the log file, up to its last whole block
  Position last;
  bool torn = false;
};

struct PageSummary {
  PageNumber page;
  uint64_t transitions = 0;  // gains and losses
};

struct Summary {
  bool finished = false;
  uint64_t wall_nanoseconds = 0;  // 0 in a prefix: unknown
  uint64_t events = 0;
  uint64_t raw_bytes = 0;
  uint64_t file_bytes = 0;
  uint64_t transitions = 0;
  uint64_t pages = 0;                  // that had a transition
  std::vector<KindSummary> kinds;      // all, in the order of Event::what
  std::vector<VcpuSummary> vcpus;      // by vCPU
  std::vector<PageSummary> top_pages;  // most transitions first
};

// Reads all logs. Errors: kDamaged.
Result<Summary> summarize(const Recording& recording, size_t top_pages = 10);

// With rates per second added where the duration is known.
nlohmann::json to_json(const Summary& summary);

}  // namespace reprise::log
