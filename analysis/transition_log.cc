#include "analysis/transition_log.h"

#include <algorithm>

#include "log/ticket_of.h"

namespace reprise::analysis {

Ticket Transition::ticket() const {
  return log::ticket_of(event).value_or(Ticket());
}

Right Transition::right() const {
  if (const auto* gain = std::get_if<log::Gain>(&event.what)) return gain->right;
  const auto* loss = std::get_if<log::Loss>(&event.what);
  return loss == nullptr ? Right::kNone : loss->left;
}

std::span<const log::PageStep> Transition::pages() const {
  if (const auto* gain = std::get_if<log::Gain>(&event.what)) return gain->pages;
  if (const auto* loss = std::get_if<log::Loss>(&event.what)) return {&loss->page, 1};
  return {};
}

const log::PageStep* Transition::step_of(PageNumber page) const {
  const auto steps = pages();
  const auto found = std::ranges::find_if(steps, [&](const auto& step) { return step.page == page; });
  return found == steps.end() ? nullptr : &*found;
}

TransitionLog::TransitionLog(const log::Recording& recording, log::pb::Index index)
    : recording_(&recording),
      index_(std::move(index)),
      latest_(recording.vcpus()),
      pages_(recording.vcpus()) {
  for (const auto& log : index_.logs())
    for (const auto& block : log.blocks())
      if (block.first_ticket() != 0) boundaries_.emplace_back(block.first_ticket());
  std::ranges::sort(boundaries_);
}

Result<TransitionLog> TransitionLog::open(const log::Recording& recording) {
  TRY_ASSIGN(auto index, recording.index());
  return TransitionLog(recording, std::move(index));
}

std::optional<PageNumber> TransitionLog::turn() const {
  const auto& manifest = recording_->manifest();
  if (manifest.mode() != "domains") return std::nullopt;
  return PageNumber(manifest.memory_bytes() >> kPageShift);
}

uint64_t TransitionLog::blocks() const {
  uint64_t blocks = 0;
  for (const auto& log : index_.logs()) blocks += static_cast<uint64_t>(log.blocks_size());
  return blocks;
}

// A block without tickets has 0 for its first one.
std::vector<uint32_t> TransitionLog::blocks_of(VcpuId vcpu, Ticket begin, Ticket end) const {
  std::vector<uint32_t> found;
  const auto& blocks = index_.logs(static_cast<int>(vcpu.raw)).blocks();
  for (int i = blocks.size(); i-- > 0;) {
    const uint64_t first = blocks[i].first_ticket();
    if (first == 0 || first >= end.raw) continue;
    found.push_back(static_cast<uint32_t>(i));
    if (first <= begin.raw) break;
  }
  std::ranges::reverse(found);
  return found;
}

Result<std::vector<log::Event>> TransitionLog::read_events(VcpuId vcpu, uint32_t number) {
  ++blocks_read_;
  TRY_ASSIGN(auto reader, recording_->open_log_at(vcpu, index_, number));
  const auto& block = index_.logs(static_cast<int>(vcpu.raw)).blocks(static_cast<int>(number));
  std::vector<log::Event> events;
  for (uint32_t i = 0; i < block.events(); ++i) {
    TRY_ASSIGN(auto event, reader.next());
    if (!event.has_value()) break;
    events.push_back(std::move(*event));
  }
  return events;
}

Result<const std::vector<Transition>*> TransitionLog::read(VcpuId vcpu, uint32_t number) {
  Block& block = latest_[vcpu.raw];
  if (block.number == number) return &block.transitions;
  block = {};
  TRY_ASSIGN(auto events, read_events(vcpu, number));
  std::vector<PageNumber> pages;
  for (log::Event& event : events) {
    if (!log::ticket_of(event).has_value()) continue;
    block.transitions.push_back({vcpu, std::move(event)});
    for (const auto& step : block.transitions.back().pages()) pages.push_back(step.page);
  }
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  pages_[vcpu.raw][number] = std::move(pages);
  block.number = number;
  return &block.transitions;
}

bool TransitionLog::may_hold(VcpuId vcpu, uint32_t number, PageNumber page) const {
  const auto known = pages_[vcpu.raw].find(number);
  return known == pages_[vcpu.raw].end() || std::ranges::binary_search(known->second, page);
}

Result<Ticket> TransitionLog::last() {
  Ticket last;
  if (boundaries_.empty()) return last;
  for (VcpuId vcpu; vcpu.raw < recording_->vcpus(); ++vcpu) {
    const auto blocks = blocks_of(vcpu, boundaries_.back(), Ticket(UINT64_MAX));
    if (blocks.empty()) continue;
    TRY_ASSIGN(const auto* transitions, read(vcpu, blocks.back()));
    if (!transitions->empty()) last = std::max(last, transitions->back().ticket());
  }
  return last;
}

Status TransitionLog::forward(Ticket begin, Ticket end, const std::function<bool(const Transition&)>& visit) {
  // From one boundary to the next, so that no more than a block of each log is held.
  for (Ticket from = begin; from < end;) {
    const auto next = std::ranges::upper_bound(boundaries_, from);
    const Ticket to = next == boundaries_.end() ? end : std::min(end, *next);
    TRY_ASSIGN(const auto part, between(from, to));
    for (const Transition& transition : part)
      if (!visit(transition)) return {};
    from = to;
  }
  return {};
}

Result<std::vector<Transition>> TransitionLog::between(Ticket begin, Ticket end) {
  std::vector<Transition> found;
  for (VcpuId vcpu; vcpu.raw < recording_->vcpus(); ++vcpu) {
    for (const uint32_t number : blocks_of(vcpu, begin, end)) {
      TRY_ASSIGN(const auto* transitions, read(vcpu, number));
      for (const Transition& transition : *transitions)
        if (transition.ticket() >= begin && transition.ticket() < end) found.push_back(transition);
    }
  }
  std::ranges::sort(found, {}, &Transition::ticket);
  return found;
}

Status TransitionLog::backward(PageNumber page, Ticket end,
                               const std::function<bool(const Transition&)>& visit) {
  auto boundary = std::ranges::lower_bound(boundaries_, end);
  while (boundary != boundaries_.begin()) {
    --boundary;
    std::vector<Transition> part;
    for (VcpuId vcpu; vcpu.raw < recording_->vcpus(); ++vcpu) {
      for (const uint32_t number : blocks_of(vcpu, *boundary, end)) {
        if (!may_hold(vcpu, number, page)) continue;
        TRY_ASSIGN(const auto* transitions, read(vcpu, number));
        for (const Transition& transition : *transitions)
          if (transition.ticket() >= *boundary && transition.ticket() < end &&
              transition.step_of(page) != nullptr)
            part.push_back(transition);
      }
    }
    std::ranges::sort(part, std::greater(), &Transition::ticket);
    for (const Transition& transition : part)
      if (!visit(transition) || transition.step_of(page)->version == 0) return {};
    end = *boundary;
  }
  return {};
}

Result<std::vector<log::Event>> TransitionLog::near(VcpuId vcpu, Position position, size_t count) {
  const auto& blocks = index_.logs(static_cast<int>(vcpu.raw)).blocks();
  int number = blocks.size();
  const auto begins_before = [&](const log::pb::BlockIndex& block) {
    return Position{block.first_stops(), Ticks(block.first_ticks())} < position;
  };
  while (number > 0 && !begins_before(blocks[number - 1])) --number;
  // Half of them are in the block that holds the position, or in those before it and behind it.
  std::vector<log::Event> before;
  std::vector<log::Event> after;
  for (int at = number; at-- > 0 && before.size() < count / 2;) {
    TRY_ASSIGN(auto events, read_events(vcpu, static_cast<uint32_t>(at)));
    const auto middle =
        std::ranges::find_if(events, [&](const auto& event) { return !(event.position < position); });
    if (at == number - 1) after.assign(middle, events.end());
    before.insert(before.begin(), events.begin(), middle);
  }
  for (int at = number; at < blocks.size() && after.size() < count; ++at) {
    TRY_ASSIGN(auto events, read_events(vcpu, static_cast<uint32_t>(at)));
    after.insert(after.end(), events.begin(), events.end());
  }
  const size_t from = before.size() - std::min(before.size(), count - std::min(count / 2, after.size()));
  std::vector<log::Event> found(before.begin() + static_cast<ptrdiff_t>(from), before.end());
  after.resize(std::min(after.size(), count - found.size()));
  found.insert(found.end(), after.begin(), after.end());
  return found;
}

Result<std::vector<Transition>> nearest(TransitionLog& log, Ticket next, uint32_t count) {
  TRY_ASSIGN(const Ticket last, log.last());
  const uint64_t at = std::min(next.raw, last.raw + 1);
  const uint64_t end = std::min(at + (count + 1) / 2, last.raw + 1);
  const uint64_t begin = end > count ? end - count : 1;
  return log.between(Ticket(begin), Ticket(std::max(end, std::min(begin + count, last.raw + 1))));
}

}  // namespace reprise::analysis
