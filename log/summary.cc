#include "log/summary.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <variant>

#include "log/event_codec.h"

namespace reprise::log {
namespace {

using PageCounts = std::unordered_map<PageNumber, uint64_t>;

void count_pages(const Event& event, PageCounts& pages) {
  if (const auto* gain = std::get_if<Gain>(&event.what))
    for (const PageStep& step : gain->pages) ++pages[step.page];
  if (const auto* loss = std::get_if<Loss>(&event.what)) ++pages[loss->page.page];
}

// Reads blocks, not events: it needs their sizes.
Result<VcpuSummary> summarize_log(const Recording& recording, VcpuId vcpu, Summary& summary,
                                  PageCounts& pages) {
  VcpuSummary log;
  TRY_ASSIGN(VcpuLogReader reader, recording.open_log(vcpu));
  BlockEncoder encoder;
  std::string discarded;
  uint64_t blocks_before = 0;
  for (;;) {
    TRY_ASSIGN(const std::optional<Event> event, reader.next());
    if (const uint64_t blocks = reader.blocks().next_number(); blocks != blocks_before) {
      // The first event of another block: deltas start again.
      encoder.take(discarded);
      blocks_before = blocks;
      log.raw_bytes += reader.blocks().last_header().raw_bytes;
    }
    if (!event) break;
    KindSummary& kind = summary.kinds[event->what.index()];
    ++kind.events;
    kind.bytes += encoder.add(*event);
    ++log.events;
    log.last = event->position;
    count_pages(*event, pages);
  }
  log.blocks = reader.blocks().next_number();
  log.file_bytes = reader.blocks().offset();
  log.torn = reader.torn();
  return log;
}

std::vector<PageSummary> most_transferred(const PageCounts& pages, size_t count) {
  std::vector<PageSummary> top;
  top.reserve(pages.size());
  for (const auto& [page, transitions] : pages) top.push_back({page, transitions});
  count = std::min(count, top.size());
  std::partial_sort(top.begin(), top.begin() + static_cast<ptrdiff_t>(count), top.end(),
                    [](const PageSummary& a, const PageSummary& b) {
                      return a.transitions != b.transitions ? a.transitions > b.transitions : a.page < b.page;
                    });
  top.resize(count);
  return top;
}

}  // namespace

Result<Summary> summarize(const Recording& recording, size_t top_pages) {
  Summary summary;
  summary.finished = recording.final().has_value();
  if (recording.final()) summary.wall_nanoseconds = recording.final()->wall_nanoseconds();
  for (const Event& sample :
       {Event{{}, Gain()}, Event{{}, Loss()}, Event{{}, Value()}, Event{{}, ApicMessage()},
        Event{{}, Digest()}, Event{{}, End()}, Event{{}, Spin()}, Event{{}, MachineDigest()},
        Event{{}, Input()}, Event{{}, UserBreakpoint()}, Event{{}, Preemption()}})
    summary.kinds.push_back({std::string(kind_name(sample))});
  PageCounts pages;
  for (uint32_t i = 0; i < recording.vcpus(); ++i) {
    TRY_ASSIGN(VcpuSummary log, summarize_log(recording, VcpuId(i), summary, pages));
    summary.events += log.events;
    summary.raw_bytes += log.raw_bytes;
    summary.file_bytes += log.file_bytes;
    summary.vcpus.push_back(log);
  }
  summary.transitions = summary.kinds[0].events + summary.kinds[1].events;
  summary.pages = pages.size();
  summary.top_pages = most_transferred(pages, top_pages);
  return summary;
}

nlohmann::json to_json(const Summary& summary) {
  nlohmann::json out = {
      {"finished", summary.finished},     {"wall_nanoseconds", summary.wall_nanoseconds},
      {"events", summary.events},         {"raw_bytes", summary.raw_bytes},
      {"file_bytes", summary.file_bytes}, {"transitions", summary.transitions},
      {"pages", summary.pages},           {"kinds", nlohmann::json::array()},
      {"vcpus", nlohmann::json::array()}, {"top_pages", nlohmann::json::array()},
  };
  const double seconds = static_cast<double>(summary.wall_nanoseconds) / 1e9;
  if (seconds > 0) {
    out["events_per_second"] = static_cast<double>(summary.events) / seconds;
    out["transitions_per_second"] = static_cast<double>(summary.transitions) / seconds;
    out["file_bytes_per_second"] = static_cast<double>(summary.file_bytes) / seconds;
  }
  for (const KindSummary& kind : summary.kinds)
    out["kinds"].push_back({{"kind", kind.kind}, {"events", kind.events}, {"bytes", kind.bytes}});
  for (const VcpuSummary& log : summary.vcpus)
    out["vcpus"].push_back({{"events", log.events},
                            {"blocks", log.blocks},
                            {"raw_bytes", log.raw_bytes},
                            {"file_bytes", log.file_bytes},
                            {"stops", log.last.stops},
                            {"ticks", log.last.ticks.raw},
                            {"torn", log.torn}});
  for (const PageSummary& page : summary.top_pages)
    out["top_pages"].push_back({{"page", page.page.raw}, {"transitions", page.transitions}});
  return out;
}

}  // namespace reprise::log
