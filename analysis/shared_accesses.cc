#include "analysis/shared_accesses.h"

#include <algorithm>

#include "replay/debug/access_trace.h"

namespace reprise::analysis {
namespace {

using replay::Mark;

// Of a loop that waits, few turns say all.
constexpr uint64_t kWaitCounts = 16;
constexpr uint64_t kSpinTurns = 4;

// A vCPU's events in a row, by number.
struct Stretch {
  VcpuId vcpu;
  uint64_t first = 0, last = 0;
  std::vector<uint64_t> sums;  // stops and ticks at the end of each event; none behind the last ticket
};

// That reached a vCPU.
struct Message {
  Position at;
  bool from_vcpu = false;  // else it is its timer's
};
Result<std::vector<Message>> messages_to(const log::Recording& recording, VcpuId vcpu) {
  std::vector<Message> messages;
  TRY_ASSIGN(auto reader, recording.open_log(vcpu));
  for (;;) {
    TRY_ASSIGN(const auto event, reader.next());
    if (!event.has_value()) return messages;
    if (const auto* message = std::get_if<log::ApicMessage>(&event->what))
      messages.push_back({event->position, message->kind != log::ApicMessageKind::kTimer});
  }
}

// From event `begin` on, and from `end` back.
Result<std::vector<Stretch>> stretches_of(TransitionLog& log, const replay::Timeline& timeline,
                                          uint64_t begin, uint64_t end) {
  std::vector<Stretch> stretches;
  const auto add = [&](uint64_t event, VcpuId vcpu) {
    if (stretches.empty() || stretches.back().vcpu != vcpu) stretches.push_back({vcpu, event, event, {}});
    stretches.back().last = event;
  };
  TRY(log.forward(Ticket(begin), Ticket(end), [&](const Transition& transition) {
    add(transition.ticket().raw, transition.vcpu);
    stretches.back().sums.push_back(transition.event.position.sum());
    return true;
  }));
  for (uint64_t event = stretches.empty() ? begin : stretches.back().last + 1; event < end; ++event) {
    const auto vcpu = timeline.owner_of(event);
    if (!vcpu.has_value()) break;
    // The last way of each vCPU is one of its own: it has no tickets.
    stretches.push_back({*vcpu, event, event, {}});
  }
  return stretches;
}

class Tracer final : public replay::AccessListener {
 public:
  Tracer(vmm::Machine& machine, const TraceLimits& limits, std::vector<std::vector<Message>> messages)
      : machine_(machine), limits_(limits), messages_(std::move(messages)), taken_(machine.vcpus()) {}

  void accessed(const replay::MemoryAccess& access) override {
    if (!looks_) return;
    found.trace.emplace_back(access);
    ++found.accesses;
    if (!in_stretch_.emplace(access.rip, access.start).second) repeated_ += access.waits ? kWaitCounts : 1;
    turns_ = access.waits && access.start == waits_for_ ? turns_ + 1 : 0;
    waits_for_ = access.waits ? access.start : Gpa(UINT64_MAX);
    if (at_end_ || repeated_ < limits_.repeated) return;
    looks_ = false;
    // Nobody else executes, so what it waits for does not come; it can only be interrupted.
    spins_ = turns_ >= kSpinTurns;
  }
  Right unseen(VcpuId /*vcpu*/, PageNumber page) override {
    return looks_ && !no_data_.contains(page) ? Right::kNone : Right::kWrite;
  }
  void is_no_data(PageNumber page) override { no_data_.insert(page); }
  void lost_sight(VcpuId vcpu) override { found.trace.emplace_back(Unseen{vcpu}); }
  void sends_message(VcpuId vcpu) override { found.trace.emplace_back(Sent{vcpu}); }
  void enters(VcpuId vcpu) override {
    const auto& messages = messages_[vcpu.raw];
    size_t& taken = taken_[vcpu.raw];
    const Position here = machine_.vcpu(vcpu).position();
    for (; taken < messages.size() && messages[taken].at <= here; ++taken) {
      if (messages[taken].from_vcpu) found.trace.emplace_back(Received{vcpu});
      spins_ = false;
    }
  }

  void begin() {
    looks_ = true;
    at_end_ = false;
    in_stretch_.clear();
    repeated_ = 0;
    ++found.stretches;
  }
  // False: it has seen all so far.
  bool look_again(VcpuId vcpu) {
    at_end_ = true;
    if (looks_) return false;
    note_unseen(vcpu);
    looks_ = true;
    return true;
  }
  // Nothing of it is seen any more.
  void end(VcpuId vcpu) {
    if (!looks_) note_unseen(vcpu);
  }

  SharedAccesses found;

 private:
  void note_unseen(VcpuId vcpu) {
    if (spins_) return;
    found.trace.emplace_back(Unseen{vcpu});
    ++found.unseen;
  }

  vmm::Machine& machine_;
  const TraceLimits limits_;
  const std::vector<std::vector<Message>> messages_;  // to each vCPU
  std::vector<size_t> taken_;                         // of each of these
  std::unordered_set<PageNumber> no_data_;
  bool looks_ = true;
  bool at_end_ = false;
  std::set<std::pair<Gva, Gpa>> in_stretch_;  // instructions, and what they accessed
  uint64_t repeated_ = 0;
  Gpa waits_for_;       // in the loop that it may be in,
  uint64_t turns_ = 0;  // with so many turns so far
  bool spins_ = false;  // while it is not looked at
};

// Where its last part begins: the event, and the sum there.
struct Tail {
  uint64_t event = 0;
  uint64_t sum = 0;
};
std::optional<Tail> tail_of(const Stretch& stretch, uint64_t length) {
  if (stretch.sums.empty()) return std::nullopt;
  const uint64_t end = stretch.sums.back(), begin = end - std::min(end, length);
  const auto at = std::ranges::find_if(stretch.sums, [&](uint64_t sum) { return sum > begin; });
  if (at == stretch.sums.end()) return std::nullopt;
  return Tail{stretch.first + static_cast<uint64_t>(at - stretch.sums.begin()), begin};
}

Status run_stretch(replay::Timeline& timeline, replay::AccessTrace& trace, Tracer& tracer,
                   const Stretch& stretch, const Mark& end, uint64_t at_end) {
  tracer.begin();
  TRY(trace.renew(stretch.vcpu));
  if (const auto tail = tail_of(stretch, at_end)) {
    TRY(timeline.run_watched(trace, std::min(end, Mark{tail->event})));
    if (!timeline.at_end() && timeline.now().event == tail->event && timeline.now() < end)
      TRY(timeline.run_watched_to_sum(trace, tail->sum));
    if (tracer.look_again(stretch.vcpu)) TRY(trace.renew(stretch.vcpu));
  }
  TRY(timeline.run_watched(trace, std::min(end, Mark{stretch.last + 1})));
  tracer.end(stretch.vcpu);
  return {};
}

}  // namespace

Result<SharedAccesses> trace_shared_accesses(replay::Timeline& timeline, const log::Recording& recording,
                                             TransitionLog& log, const std::vector<PageNumber>& pages,
                                             const Mark& end, const TraceLimits& limits) {
  vmm::Machine& machine = timeline.machine();
  std::vector<std::vector<Message>> messages(machine.vcpus());
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) {
    TRY_ASSIGN(messages[vcpu.raw], messages_to(recording, vcpu));
  }
  const uint64_t end_event = std::min(end.event + 1, timeline.end_event());
  TRY_ASSIGN(const auto stretches, stretches_of(log, timeline, timeline.now().event, end_event));
  Tracer tracer(machine, limits, std::move(messages));
  replay::AccessTrace trace(timeline, pages, tracer);
  for (VcpuId vcpu; vcpu.raw < machine.vcpus(); ++vcpu) TRY(trace.renew(vcpu));
  for (const Stretch& stretch : stretches) {
    if (timeline.at_end() || timeline.now() >= end) break;
    if (tracer.found.accesses >= limits.accesses) {
      tracer.found.ended_at = timeline.now().without_steps();
      break;
    }
    TRY(run_stretch(timeline, trace, tracer, stretch, end, limits.at_end));
  }
  return std::move(tracer.found);
}

}  // namespace reprise::analysis
