#include "log/verify.h"

#include <optional>

#include "log/format.h"
#include "log/index.h"
#include "log/page_history.h"
#include "log/ticket_of.h"

namespace reprise::log {
namespace {

// Goes through one log from gain or loss to gain or loss, and checks what one log alone can show.
// Threads: confined to its owner.
class LogWalk {
 public:
  LogWalk(VcpuId vcpu, VcpuLogReader reader) : vcpu_(vcpu), reader_(std::move(reader)) {}

  // To the next event with a ticket.
  Status advance() {
    for (;;) {
      TRY_ASSIGN(event_, reader_.next());
      if (!event_) {
        seen_.torn = reader_.torn();
        return {};
      }
      if (event_->position < seen_.last)
        return damaged(fmt::format("the position goes back from stop {}, tick {}", seen_.last.stops,
                                   seen_.last.ticks.raw));
      ++seen_.events;
      seen_.last = event_->position;
      if (const auto* end = std::get_if<End>(&event_->what)) end_ = *end;
      seen_.ended = end_.has_value();
      const std::optional<Ticket> ticket = ticket_of(*event_);
      if (!ticket) continue;
      if (*ticket <= ticket_)
        return damaged(fmt::format("ticket {} follows ticket {}", ticket->raw, ticket_.raw));
      ticket_ = *ticket;
      return {};
    }
  }

  [[nodiscard]] bool at_end() const { return !event_; }
  [[nodiscard]] Ticket ticket() const { return ticket_; }
  [[nodiscard]] const Event& event() const { return *event_; }
  [[nodiscard]] VcpuId vcpu() const { return vcpu_; }
  [[nodiscard]] const VerifiedLog& seen() const { return seen_; }
  [[nodiscard]] const std::optional<End>& end() const { return end_; }

  [[nodiscard]] tl::unexpected<Error> damaged(const std::string& what) const {
    return fail(ErrorCode::kDamaged, "{}: event {} at stop {}, tick {}: {}", reader_.blocks().path().string(),
                seen_.events, seen_.last.stops, seen_.last.ticks.raw, what);
  }

 private:
  VcpuId vcpu_;
  VcpuLogReader reader_;
  std::optional<Event> event_;
  std::optional<End> end_;
  Ticket ticket_;  // the first is 1
  VerifiedLog seen_;
};

// The walk that stands at the lowest ticket, or null when all are at their end.
LogWalk* lowest(std::vector<LogWalk>& walks) {
  LogWalk* lowest = nullptr;
  for (LogWalk& walk : walks)
    if (!walk.at_end() && (lowest == nullptr || walk.ticket() < lowest->ticket())) lowest = &walk;
  return lowest;
}

Status apply(PageHistory& history, const LogWalk& walk, PageNumber lowest_page, PageHistory::Known known) {
  Status applied;
  bool allowed = true;
  if (const auto* gain = std::get_if<Gain>(&walk.event().what)) {
    applied = history.apply(walk.vcpu(), *gain, known);
    for (const PageStep& step : gain->pages) allowed = allowed && step.page >= lowest_page;
  } else if (const auto* loss = std::get_if<Loss>(&walk.event().what)) {
    applied = history.apply(walk.vcpu(), *loss, known);
    allowed = loss->page.page >= lowest_page;
  }
  if (!applied) return walk.damaged(applied.error().message);
  if (!allowed) return walk.damaged("a page has a transition of its own in serial mode");
  return {};
}

// All transitions of all logs, in ticket order.
Status walk_transitions(std::vector<LogWalk>& walks, PageNumber lowest_page, Verified& verified) {
  PageHistory history;
  Ticket last;
  for (LogWalk& walk : walks) TRY(walk.advance());
  while (LogWalk* walk = lowest(walks)) {
    const Ticket ticket = walk->ticket();
    if (ticket == last) return walk->damaged(fmt::format("ticket {} is used twice", ticket.raw));
    if (ticket == verified.complete + 1) verified.complete = ticket;
    const bool gap = ticket != verified.complete;
    if (gap && verified.finished)
      return walk->damaged(
          fmt::format("ticket {}, but no log has ticket {}", ticket.raw, verified.complete.raw + 1));
    TRY(apply(history, *walk, lowest_page, gap ? PageHistory::Known::kSome : PageHistory::Known::kAll));
    last = ticket;
    ++verified.transitions;
    TRY(walk->advance());
  }
  verified.pages = history.pages();
  return {};
}

Status check_final(const Recording& recording, const std::vector<LogWalk>& walks, const Verified& verified) {
  const pb::Final& final = *recording.final();
  const std::string path = (recording.folder() / kFinalFile).string();
  if (final.tickets() != verified.transitions)
    return fail(ErrorCode::kDamaged, "{} says {} tickets, the logs have {}", path, final.tickets(),
                verified.transitions);
  for (const LogWalk& walk : walks) {
    const uint64_t expected = final.register_digests(static_cast<int>(walk.vcpu().raw));
    if (walk.end()->registers != expected)
      return walk.damaged(fmt::format("the register digest is {:016x}, {} says {:016x}",
                                      walk.end()->registers, path, expected));
  }
  return recording.check_console();
}

Status check_index(const Recording& recording) {
  TRY_ASSIGN(const pb::Index stored, recording.index());
  TRY_ASSIGN(const pb::Index built, build_index(recording.folder(), recording.vcpus()));
  if (stored.SerializeAsString() != built.SerializeAsString())
    return fail(ErrorCode::kDamaged, "{} is not the index of the logs",
                (recording.folder() / kIndexFile).string());
  return {};
}

}  // namespace

Result<Verified> verify_recording(const Recording& recording) {
  Verified verified;
  verified.finished = recording.final().has_value();
  const std::string& mode = recording.manifest().mode();
  if (mode != "crew" && mode != "domains" && mode != "serial")
    return fail(ErrorCode::kDamaged, "the manifest has the mode \"{}\", known are crew, domains and serial",
                mode);
  std::vector<LogWalk> walks;
  for (uint32_t i = 0; i < recording.vcpus(); ++i) {
    TRY_ASSIGN(VcpuLogReader reader, recording.open_log(VcpuId(i)));
    walks.emplace_back(VcpuId(i), std::move(reader));
  }
  // In serial mode only tokens (page numbers above RAM: the turn, shared devices) change hands.
  const PageNumber lowest_page(mode == "serial" ? recording.manifest().memory_bytes() >> kPageShift : 0);
  TRY(walk_transitions(walks, lowest_page, verified));
  for (const LogWalk& walk : walks) verified.logs.push_back(walk.seen());
  if (verified.finished) TRY(check_final(recording, walks, verified));
  TRY(check_index(recording));
  return verified;
}

}  // namespace reprise::log
