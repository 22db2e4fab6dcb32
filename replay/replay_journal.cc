#include "replay/replay_journal.h"

#include <algorithm>

#include "log/event_text.h"

namespace reprise::replay {
namespace {

std::string describe(std::span<const PageRight> needed) {
  std::string text;
  for (const auto& need : needed)
    text += fmt::format("{}{} page {:#x}", text.empty() ? "" : ", ",
                        need.right == Right::kWrite ? "write" : "read", need.page.raw);
  return text;
}

bool ends(const log::Event* event) {
  return event != nullptr && std::holds_alternative<log::End>(event->what);
}

std::optional<vmm::UserStop> user_stop_of(const log::Event& event) {
  if (const auto* spin = std::get_if<log::Spin>(&event.what)) return *spin;
  if (const auto* at = std::get_if<log::UserBreakpoint>(&event.what)) return *at;
  if (const auto* at = std::get_if<log::Preemption>(&event.what)) return *at;
  return std::nullopt;
}

}  // namespace

ReplayJournal::ReplayJournal(VcpuId vcpu, log::VcpuLogReader reader, PageOrder& order, TotalOrder* total,
                             ept::View& view, uint64_t digest_every)
    : vcpu_(vcpu),
      reader_(std::move(reader)),
      order_(order),
      total_(total),
      view_(view),
      digest_every_(digest_every) {}

ReplayJournal::~ReplayJournal() = default;

Result<const log::Event*> ReplayJournal::due() {
  TRY_ASSIGN(const log::Event* const event, reader_.peek());
  if (event == nullptr) {
    log_ended_ = true;
    return nullptr;
  }
  if (event->position < at()) return diverge("passed the event's position without asking for it");
  return event->position == at() ? event : nullptr;
}

Status ReplayJournal::consume() {
  TRY_ASSIGN(auto event, reader_.next());
  ++events_;
  recent_.push_back(std::move(*event));
  if (recent_.size() > kRecentEvents) recent_.pop_front();
  return {};
}

tl::unexpected<Error> ReplayJournal::diverge(const std::string& found) {
  Divergence divergence{vcpu_, at(), "the end of the log", found, recent_};
  if (const auto event = reader_.peek(); event && *event != nullptr)
    divergence.expected = log::to_text(**event);
  return tl::unexpected(to_error(divergence));
}

Status ReplayJournal::check_pages(std::span<const log::PageStep> steps) const {
  for (const auto& step : steps)
    if (step.page.raw >= order_.pages() || view_.is_exempt(step.page))
      return fail(ErrorCode::kDamaged, "vCPU {}: the log names page {:#x}, which this machine does not have",
                  vcpu_.raw, step.page.raw);
  return {};
}

template <typename Arrival>
Result<std::optional<vmm::AsyncEvent>> ReplayJournal::arrives(Arrival what) {
  note_async(what);
  TRY(consume());
  return std::optional<vmm::AsyncEvent>(std::move(what));
}

Result<std::optional<vmm::AsyncEvent>> ReplayJournal::next_async() {
  for (;;) {
    if (order_.aborted()) return vmm::AsyncEvent(vmm::Leave{});
    TRY_ASSIGN(const log::Event* const event, due());
    if (log_ended_) return vmm::AsyncEvent(vmm::Leave{});
    if (event == nullptr) return std::optional<vmm::AsyncEvent>();
    if (const auto* loss = std::get_if<log::Loss>(&event->what)) {
      if (!is_due(loss->ticket)) return vmm::AsyncEvent(vmm::Later{});
      TRY(lose(*loss));
      continue;
    }
    if (const auto* message = std::get_if<log::ApicMessage>(&event->what)) return arrives(*message);
    if (const auto* input = std::get_if<log::Input>(&event->what)) return arrives(*input);
    if (std::holds_alternative<log::End>(event->what)) return vmm::AsyncEvent(vmm::Leave{});
    // What is left at this position is the answer to a question that the vCPU is about to ask: the turn, or
    // where it stops next.
    if (std::holds_alternative<log::Gain>(event->what) || user_stop_of(*event).has_value())
      return std::optional<vmm::AsyncEvent>();
    return diverge("has nothing to do with it at this position");
  }
}

Status ReplayJournal::wait() {
  TRY_ASSIGN(const log::Event* const event, due());
  if (event == nullptr && !log_ended_)
    return diverge("is halted and can go on only if something happens to it here");
  return {};
}

Result<std::optional<vmm::UserStop>> ReplayJournal::next_user_stop() {
  TRY_ASSIGN(const log::Event* const event, due());
  return event == nullptr ? std::nullopt : user_stop_of(*event);
}

bool ReplayJournal::spins_next() {
  const auto event = reader_.peek();
  return event && *event != nullptr && (*event)->position == at() &&
         std::holds_alternative<log::Spin>((*event)->what);
}

Status ReplayJournal::stopped_in_user_mode(const vmm::UserStop& stop) {
  TRY_ASSIGN(const log::Event* const event, due());
  if (event == nullptr || user_stop_of(*event) != stop)
    return diverge("is stopped where no event of the log stops it");
  note_async(stop);
  return consume();
}

Ticks ReplayJournal::next_stop() {
  const auto event = reader_.peek();
  // Errors and the end of the log show at the next position: stop at once to get there.
  if (!event || *event == nullptr) return Ticks(0);
  const Position& next = (*event)->position;
  Ticks stop = next.stops == at().stops ? next.ticks : kNoTick;
  if (pause_.has_value() && pause_->stops == at().stops) stop = std::min(stop, pause_->ticks);
  if (pause_at_sum_.has_value())
    stop = std::min(stop, Ticks(*pause_at_sum_ - std::min(*pause_at_sum_, at().stops)));
  return stop;
}

ReplayJournalState ReplayJournal::save() const {
  return {reader_.cursor(), at(), inputs(), log_ended_, stuck_, events_, recent_};
}

Status ReplayJournal::restore(const ReplayJournalState& state) {
  TRY(reader_.seek(state.cursor));
  arrive(state.at);
  set_inputs(state.inputs);
  log_ended_ = state.log_ended;
  stuck_ = state.stuck;
  events_ = state.events;
  recent_ = state.recent;
  return {};
}

Status ReplayJournal::lose(const log::Loss& loss) {
  TRY(check_pages({&loss.page, 1}));
  if (view_.right(loss.page.page) <= loss.left) return diverge("does not have that right on the page");
  TRY(view_.revoke(loss.page.page, loss.left));
  if (!order_.advance(loss.page, loss.ticket, false))
    return diverge("finds that a later ticket had the page already");
  took(loss.ticket);
  return consume();
}

void ReplayJournal::took(Ticket ticket) {
  order_.count(ticket);
  if (total_ != nullptr) total_->take();
  note_async(ticket.raw);
}

// In a prefix. A whole log has its End here or behind.
bool ReplayJournal::is_over() {
  const auto event = reader_.peek();
  if (event.has_value() && *event == nullptr) log_ended_ = true;
  return log_ended_;
}

bool ReplayJournal::others_first() const {
  return total_ != nullptr && !total_->is_turn_of(vcpu_);
}

Result<bool> ReplayJournal::wait_for(std::span<const log::PageStep> steps) {
  switch (order_.wait_for(steps)) {
    case PageOrder::Wait::kReady:
      return true;
    case PageOrder::Wait::kAborted:
      return false;
    case PageOrder::Wait::kStuck:
      break;
  }
  stuck_ = true;
  return false;
}

Status ReplayJournal::gain(const log::Gain& gain) {
  std::vector<PageNumber> pages;
  for (const auto& step : gain.pages) {
    pages.push_back(step.page);
    if (gain.right == Right::kWrite && order_.version(step.page) != step.version)
      return diverge(fmt::format("finds page {:#x} after {} transitions instead", step.page.raw,
                                 order_.version(step.page)));
  }
  TRY(view_.grant(pages, gain.right));
  for (const auto& step : gain.pages)
    if (!order_.advance(step, gain.ticket, gain.right == Right::kWrite))
      return diverge("finds that a later ticket had the page already");
  took(gain.ticket);
  return consume();
}

bool ReplayJournal::covered(std::span<const PageRight> needed) const {
  return std::all_of(needed.begin(), needed.end(),
                     [this](const PageRight& need) { return view_.allows(need.page, need.right); });
}

// Each page is granted; but of one that the view lacks altogether when it is granted, which may be because it
// was lost while the vCPU waited, chaos may grant reading before writing.
std::vector<PageRight> ReplayJournal::least_granted(std::span<const PageRight> needed) const {
  std::vector<PageRight> least(needed.begin(), needed.end());
  for (PageRight& need : least)
    if (view_.right(need.page) == Right::kNone) need.right = Right::kRead;
  return least;
}

Result<vmm::Acquired> ReplayJournal::acquire(std::span<const PageRight> needed, bool /*again*/) {
  std::vector<PageRight> least;  // what the Gain has to cover
  bool progress = false;
  for (;;) {
    TRY_ASSIGN(const log::Event* const event, due());
    if (log_ended_) return progress ? vmm::Acquired::kGranted : vmm::Acquired::kStopping;
    const auto* wanted = event == nullptr ? nullptr : std::get_if<log::Gain>(&event->what);
    if (const auto* loss = event == nullptr ? nullptr : std::get_if<log::Loss>(&event->what)) {
      // What is lost behind the answer is lost once the instruction is completed, or before what is asked
      // next.
      if (progress && covered(least)) return vmm::Acquired::kGranted;
      if (!is_due(loss->ticket)) return vmm::Acquired::kLater;
      TRY(lose(*loss));
      continue;
    }
    if (wanted == nullptr) {
      // All that is at this position has happened; some of it may be the answer to what is asked for next.
      if (progress ? covered(least) : !ends(event) && covered(needed)) return vmm::Acquired::kGranted;
      if (ends(event)) return vmm::Acquired::kStopping;
      return diverge("needs " + describe(needed) + (progress ? ", and was given something else" : ""));
    }
    if (!is_due(wanted->ticket)) return vmm::Acquired::kLater;
    TRY(check_pages(wanted->pages));
    TRY_ASSIGN(const bool due_now, wait_for(wanted->pages));
    if (!due_now) return vmm::Acquired::kStopping;
    least = least_granted(needed);
    TRY(gain(*wanted));
    progress = true;
  }
}

Status ReplayJournal::stopped(uint64_t registers) {
  registers = with_inputs(registers);
  if (digest_every_ == 0 || at().stops % digest_every_ != 0) return {};
  TRY_ASSIGN(const log::Event* const event, due());
  if (log_ended_) return {};
  const auto* digest = event == nullptr ? nullptr : std::get_if<log::Digest>(&event->what);
  if (digest == nullptr || digest->registers != registers)
    return diverge(fmt::format("has registers with digest {:#018x}", registers));
  return consume();
}

Status ReplayJournal::compared_machine(uint64_t digest) {
  TRY_ASSIGN(const log::Event* const event, due());
  if (log_ended_) return {};
  const auto* recorded = event == nullptr ? nullptr : std::get_if<log::MachineDigest>(&event->what);
  if (recorded == nullptr || recorded->machine != digest)
    return diverge(fmt::format("has memory and devices with digest {:#018x}", digest));
  return consume();
}

Status ReplayJournal::ended(uint64_t registers) {
  if (order_.aborted() || log_ended_ || stuck_) {
    order_.finish();
    return {};
  }
  TRY_ASSIGN(const log::Event* const event, due());
  const auto* end = event == nullptr ? nullptr : std::get_if<log::End>(&event->what);
  if (end == nullptr || end->registers != registers)
    return diverge(fmt::format("ends with registers of digest {:#018x}", registers));
  TRY(consume());
  order_.finish();
  return {};
}

Result<uint64_t> ReplayJournal::value(log::Source source) {
  TRY_ASSIGN(const log::Event* const event, due());
  if (log_ended_) return 0;
  const auto* value = event == nullptr ? nullptr : std::get_if<log::Value>(&event->what);
  if (value == nullptr || value->source != source)
    return diverge(fmt::format("reads a value from {}", log::name(source)));
  const uint64_t answer = value->value;
  note_input(answer);
  TRY(consume());
  return answer;
}

}  // namespace reprise::replay
