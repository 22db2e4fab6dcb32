#include "analysis/races.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "analysis/false_sharing.h"
#include "analysis/race_locator.h"
#include "analysis/shared_pages.h"
#include "analysis/transfers.h"

namespace reprise::analysis {
namespace {

using replay::MemoryAccess;

Gva instruction_of(const MemoryAccess& access) {
  // Any byte of the instruction before has its line.
  return access.rip_is_behind ? Gva(access.rip.raw - 1) : access.rip;
}

// Names things, or leaves them without.
class Names {
 public:
  explicit Names(const Symbols* symbols) : symbols_(symbols) {}
  [[nodiscard]] std::vector<CodeFrame> code(Gva at) const {
    return symbols_ == nullptr ? std::vector<CodeFrame>() : symbols_->code(at);
  }
  // Guests that KVM emulates say no linear address; the bare ones have equal ones.
  [[nodiscard]] std::string data(const MemoryAccess& access) const {
    if (symbols_ == nullptr) return {};
    return symbols_->data(access.linear.raw != 0 ? access.linear : Gva(access.start.raw));
  }
  // What two instructions of one line have in common.
  [[nodiscard]] std::string line(const MemoryAccess& access) const {
    std::string text = access.writes ? "write" : "read";
    const auto frames = code(instruction_of(access));
    if (frames.empty()) return text + fmt::format(" {:#x}", access.rip.raw);
    for (const auto& frame : frames) text += fmt::format(" {}:{}:{}", frame.function, frame.file, frame.line);
    return text;
  }

 private:
  const Symbols* symbols_;
};

const MemoryAccess& access_at(const Trace& trace, size_t item) {
  return std::get<MemoryAccess>(trace[item]);
}

// How many accesses by the same instruction to the same bytes are between it and its position.
uint64_t number_in_position(const Trace& trace, size_t item) {
  const MemoryAccess& sought = access_at(trace, item);
  uint64_t before = 0;
  for (size_t i = item; i-- > 0;) {
    const auto* other = std::get_if<MemoryAccess>(&trace[i]);
    if (other == nullptr) continue;
    if (other->vcpu != sought.vcpu || other->mark != sought.mark) break;
    if (other->rip == sought.rip && other->start == sought.start && other->writes == sought.writes) ++before;
  }
  return before;
}

RacingAccess without_place(const MemoryAccess& access, const Names& names) {
  RacingAccess found{.access = access, .mark = access.mark, .object = names.data(access), .stack = {}};
  found.stack.push_back(names.code(instruction_of(access)));
  return found;
}

Status go_there(replay::Timeline& timeline, const Trace& trace, size_t item, const Names& names,
                RacingAccess& found) {
  TRY_ASSIGN(const auto located, locate(timeline, found.access, number_in_position(trace, item)));
  if (!located.has_value()) return {};
  found.mark = located->mark;
  found.exact = true;
  found.access.rip = located->rip;
  found.access.rip_is_behind = false;
  found.access.linear = located->linear;
  found.object = names.data(found.access);
  found.stack = {names.code(located->rip)};
  // Of a call, the byte before the return address is the last one.
  for (const Gva address : located->return_addresses) {
    auto frames = names.code(Gva(address.raw - 1));
    if (frames.empty()) break;
    found.stack.push_back(std::move(frames));
  }
  return {};
}

struct Found {
  RacingPair pair;
  uint64_t count = 0;
};

// Pairs of instructions that are of the same two lines are one race.
std::vector<Found> by_lines(const Trace& trace, const std::vector<RacingPair>& pairs, const Names& names) {
  std::vector<Found> found;
  std::map<std::pair<std::string, std::string>, size_t> known;
  for (const RacingPair& pair : pairs) {
    auto lines =
        std::pair(names.line(access_at(trace, pair.first)), names.line(access_at(trace, pair.second)));
    if (lines.second < lines.first) std::swap(lines.first, lines.second);
    const auto [at, is_new] = known.emplace(std::move(lines), found.size());
    if (is_new) found.push_back({pair, 0});
    found[at->second].count += pair.count;
  }
  return found;
}

Result<std::vector<FalseSharing>> false_sharing_in(const Trace& trace, TransitionLog& log, const Names& names,
                                                   Ticket begin, Ticket end) {
  TRY_ASSIGN(const Transfers transfers, analysis::transfers(log, begin, end));
  std::unordered_map<PageNumber, uint64_t> counts;
  for (const auto& page : transfers.pages) counts[page.page] = page.count;
  std::vector<FalseSharing> found;
  for (const auto& page : falsely_shared_pages(trace)) {
    FalseSharing sharing{page.page, counts[page.page], {}};
    for (const PagePart& part : page.parts) {
      const MemoryAccess& access = access_at(trace, part.item);
      sharing.users.push_back({part.vcpu, part.writes, part.first, part.last, names.data(access),
                               names.code(instruction_of(access))});
    }
    found.push_back(std::move(sharing));
  }
  std::ranges::stable_sort(found, std::greater(), &FalseSharing::transfers);
  return found;
}

}  // namespace

Result<Races> find_races(replay::Timeline& timeline, const log::Recording& recording, const Symbols* symbols,
                         const RaceOptions& options) {
  const replay::Mark begin = options.from.value_or(timeline.now());
  const replay::Mark end = options.to.value_or(replay::Mark{timeline.end_event()});
  if (end <= begin)
    return fail(ErrorCode::kUsage, "nothing is between {} and {}", to_text(begin), to_text(end));
  TRY_ASSIGN(auto log, TransitionLog::open(recording));
  Races found;
  TRY(timeline.seek(begin));
  TRY_ASSIGN(const SharedPages pages, find_shared_pages(timeline, end));
  found.pages = pages.data.size();
  found.pages_left_out = pages.left_out;
  TRY(timeline.seek(begin));
  TRY_ASSIGN(const auto accesses,
             trace_shared_accesses(timeline, recording, log, pages.data, end, options.limits));
  found.accesses = accesses.accesses;
  found.stretches = accesses.stretches;
  found.unseen = accesses.unseen;
  found.ended_at = accesses.ended_at;
  const Names names(symbols);
  for (const Found& race : by_lines(accesses.trace, find_races(accesses.trace, recording.vcpus()), names)) {
    Race& made = found.races.emplace_back();
    made.count = race.count;
    made.first = without_place(access_at(accesses.trace, race.pair.first), names);
    made.second = without_place(access_at(accesses.trace, race.pair.second), names);
    if (found.races.size() > options.most_located) continue;
    TRY(go_there(timeline, accesses.trace, race.pair.first, names, made.first));
    TRY(go_there(timeline, accesses.trace, race.pair.second, names, made.second));
  }
  TRY_ASSIGN(found.false_sharing,
             false_sharing_in(accesses.trace, log, names, Ticket(std::max<uint64_t>(1, begin.event)),
                              Ticket(end.event)));
  return found;
}

}  // namespace reprise::analysis
