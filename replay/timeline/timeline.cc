#include "replay/timeline/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/time.h"
#include "log/format.h"
#include "vmm/host/host_profile.h"

namespace reprise::replay {

namespace {

constexpr uint64_t kAskEveryNs = 50'000'000;
constexpr uint64_t kFarNs = 10'000'000;  // as long as a checkpoint of a small guest takes to make
// Checkpoints are not nearer to each other than this. A few times what making and putting back one costs.
constexpr uint64_t kNearestNs = 4'000'000;
// Executing takes at least so many times as long as the checkpoints on the way: those of large guests are
// slow.
constexpr uint64_t kCheckpointShare = 8;
// After a checkpoint the first write to each page is an exit, where KVM logs them: 78 ms for each checkpoint
// of a booting kernel in the lab.
constexpr uint64_t kSparser = 10;

}  // namespace

Result<std::unique_ptr<Timeline>> Timeline::open(const vmm::Kvm& kvm, const log::Recording& recording,
                                                 TimelineOptions options) {
  TRY_ASSIGN(auto order, TotalOrder::read(recording));
  std::unique_ptr<Timeline> timeline(new Timeline(std::move(order), std::move(options)));
  Timeline& self = *timeline;
  TRY_ASSIGN(self.replay_, ReplayMachine::create(kvm, recording, &self.order_, self.options_.views,
                                                 self.options_.moved_disks,
                                                 [to = &self](uint8_t byte) { to->wrote(byte); }));
  TRY_ASSIGN(self.recorded_console_, recording.open_console());
  TRY(self.machine().assemble(self.replay_->journals()));
  self.machine().run_from_here();
  self.preemption_timer_ = std::make_unique<PreemptionTimer>(self.machine());
  self.left_.resize(self.machine().vcpus());
  TRY(self.checkpoint());
  TRY(self.open_checkpoint_files(recording, kvm));
  return timeline;
}

// After the beginning has been kept: that needs no file.
Status Timeline::open_checkpoint_files(const log::Recording& recording, const vmm::Kvm& kvm) {
  TRY_ASSIGN(auto files, CheckpointFiles::create(recording, machine(),
                                                 to_message(vmm::describe_host(kvm, options_.views))));
  files_.emplace(std::move(files));
  if (options_.store_checkpoints) return files_->clear();
  for (auto& checkpoint : files_->load(options_.remark, options_.interrupt))
    if (checkpoint->mark > checkpoints_.back()->mark) {
      checkpoint->from_file = true;
      checkpoints_.push_back(std::move(checkpoint));
    }
  return check_interruption();
}

// Whose turn it is; after the last ticket, the first vCPU that has not left.
std::optional<VcpuId> Timeline::turn() const {
  if (!order_.all_taken()) return order_.owner();
  const auto first = std::ranges::find(left_, false);
  if (first == left_.end()) return std::nullopt;
  return VcpuId(static_cast<uint32_t>(first - left_.begin()));
}

std::optional<VcpuId> Timeline::owner_of(uint64_t event) const {
  if (event == 0) return std::nullopt;
  if (event <= order_.last().raw) return order_.owner_of(Ticket(event));
  const uint64_t vcpu = event - order_.last().raw - 1;
  return vcpu < left_.size() ? std::optional(VcpuId(static_cast<uint32_t>(vcpu))) : std::nullopt;
}

uint64_t Timeline::event() const {
  if (!order_.all_taken()) return order_.next().raw;
  const auto vcpu = turn();
  return order_.last().raw + 1 + (vcpu.has_value() ? vcpu->raw : left_.size());
}

Mark Timeline::now() {
  if (steps_ != 0) return {base_.event, {base_.at.stops, base_.at.ticks, steps_}};
  const auto vcpu = turn();
  if (!vcpu.has_value()) return {event()};
  return {event(), machine().vcpu(*vcpu).position()};
}

// A vCPU that was interrupted by the host has not come anywhere, and its clock may be ahead of its position.
void Timeline::note_move(const Mark& before) {
  if (steps_ == 0) return;
  const auto vcpu = turn();
  if (event() != before.event || !vcpu.has_value() ||
      machine().vcpu(*vcpu).position().stops != before.at.stops || machine().vcpu(*vcpu).at_position())
    steps_ = 0;
}

Status Timeline::advanced(VcpuId vcpu, vmm::Vcpu::Advance how) {
  if (how == vmm::Vcpu::Advance::kLater || how == vmm::Vcpu::Advance::kLeft) {
    // Nobody else is due: the log of a prefix ends in the middle of what this vCPU waits for. In a whole
    // recording, finish() finds that.
    if (!order_.all_taken() && order_.owner() == vcpu)
      return fail(ErrorCode::kDivergence,
                  "the replay differs from the recording: vCPU {} {} before it takes ticket {}", vcpu.raw,
                  how == vmm::Vcpu::Advance::kLeft ? "leaves" : "waits for others", order_.next().raw);
    if (order_.all_taken()) left_[vcpu.raw] = true;
  }
  caught_ = how == vmm::Vcpu::Advance::kCaught;
  return {};
}

Status Timeline::advance(const std::optional<Mark>& until) {
  const PreemptionTimer::Beating beating(*preemption_timer_);
  return advance_to(until);
}

Status Timeline::advance_to(const std::optional<Mark>& until) {
  const bool this_turn = until.has_value() && until->event == event();
  replay_->journal(*turn()).pause_at(this_turn ? std::optional(until->at.without_steps()) : std::nullopt);
  return go_on();
}

Status Timeline::run_to_sum(uint64_t sum) {
  const uint64_t start = event();
  const auto vcpu = turn();
  const PreemptionTimer::Beating beating(*preemption_timer_);
  while (!at_end() && event() == start) {
    if (machine().vcpu(*vcpu).position().sum() >= sum) break;
    ReplayJournal& journal = replay_->journal(*vcpu);
    journal.pause_at({});
    journal.pause_at_sum(sum);
    const Status went = go_on();
    journal.pause_at_sum({});
    TRY(went);
    TRY(check_interruption());
  }
  return {};
}

Status Timeline::go_on() {
  const VcpuId vcpu = *turn();
  const Mark before = now();
  exited_ = before;
  const uint64_t start = monotonic_ns();
  TRY_ASSIGN(auto how, machine().vcpu(vcpu).advance());
  // It has touched a page that was not mapped yet, or not any more: that is no place.
  while (how == vmm::Vcpu::Advance::kOn && !machine().is_far_between_positions() &&
         machine().vcpu(vcpu).is_between_positions()) {
    TRY_ASSIGN(how, machine().vcpu(vcpu).advance());
  }
  executed_ns_ += monotonic_ns() - start;
  TRY(advanced(vcpu, how));
  note_move(before);
  is_past_mark_ = how == vmm::Vcpu::Advance::kOn && machine().is_far_between_positions() &&
                  !machine().vcpu(vcpu).at_position();
  // By an exit of this vCPU, or a message that came to it.
  if (watcher_ != nullptr && watcher_->catches_devices()) caught_ = true;
  return checkpoint_on_the_way();
}

// Also while a watcher looks, as long as nothing of it is in the machine.
Status Timeline::checkpoint_on_the_way() {
  if (caught_ || (tainted_ && watcher_ == nullptr) || !checkpoint_is_due()) return {};
  if (tainted_ && !watcher_->lift()) return {};
  const bool tainted = std::exchange(tainted_, false);
  const auto made = checkpoint();
  tainted_ = tainted;
  return made.has_value() ? Status() : tl::unexpected(made.error());
}

// The guest's next byte.
void Timeline::wrote(uint8_t byte) {
  ConsoleCheck& console = replay_->console();
  if (tainted_) {  // it will be written again on the way that counts, or is of another way
    console.skip();
    if (tainted_console_) tainted_console_(byte);
    return;
  }
  console.write(byte);
  if (console.written() <= shown_) return;
  shown_ = console.written();
  if (options_.console) options_.console(byte);
}

// Up to byte `end`, of which the replay has written nothing: it comes there by a checkpoint from a file.
Status Timeline::show_recorded(uint64_t end) {
  if (!recorded_console_.has_value() || !options_.console) return {};
  recorded_console_->seek(shown_);
  for (uint64_t at = shown_; at < end;) {
    TRY_ASSIGN(const auto piece, recorded_console_->next());
    if (piece.empty()) break;
    for (const uint8_t byte : piece.first(std::min<size_t>(piece.size(), end - at))) options_.console(byte);
    at += piece.size();
  }
  return {};
}

// Every so often; on the way back to a moment after which something is known, more and more often towards it:
// who goes one step back will go another one.
bool Timeline::checkpoint_is_due() {
  if (options_.checkpoint_every_ns == 0 || at_end()) return false;
  const uint64_t every = options_.checkpoint_every_ns * (machine().is_far_between_positions() ? kSparser : 1);
  const uint64_t left = sought_ns_ > executed_ns_ ? sought_ns_ - executed_ns_ : every;
  const uint64_t furthest = std::max(every, kCheckpointShare * checkpoint_cost_ns_);
  const uint64_t nearest = std::min(std::max(kNearestNs, checkpoint_cost_ns_), furthest);
  return since_checkpoint_ns() >= std::clamp(left, nearest, furthest);
}

// Of executing, from the last checkpoint before this moment.
uint64_t Timeline::since_checkpoint_ns() {
  const Mark mark = now();
  const auto after = std::ranges::upper_bound(checkpoints_, mark, {},
                                              [](const auto& checkpoint) { return checkpoint->mark; });
  if (after == checkpoints_.begin()) return 0;
  return executed_ns_ - std::min(executed_ns_, (*(after - 1))->executed_ns);
}

Result<bool> Timeline::step() {
  const VcpuId vcpu = *turn();
  const Mark before = now();
  const Mark base = before.without_steps();
  const Mark next{base.event, {base.at.stops, base.at.ticks + 1}};
  const uint64_t completed = machine().vcpu(vcpu).completed_stops();
  const uint64_t breakpoints = machine().vcpu(vcpu).statistics().breakpoints;
  do {
    // In a loop that the recorder stopped, or interrupted by the host: only the next position is a place
    // again.
    if (replay_->journal(vcpu).spins_next() || machine().vcpu(vcpu).is_between_positions()) {
      const PreemptionTimer::Beating beating(*preemption_timer_);
      TRY(advance_to(next));
      continue;
    }
    replay_->journal(vcpu).pause_at(next.at);
    const uint64_t start = monotonic_ns();
    TRY_ASSIGN(const auto how, machine().vcpu(vcpu).step(next.at.ticks));
    executed_ns_ += monotonic_ns() - start;
    if (machine().vcpu(vcpu).stepped()) {
      base_ = base;
      ++steps_;
      is_past_mark_ = false;
      // A kernel without safepoints executes hundreds of thousands of instructions from one stop to the next.
      if (machine().is_far_between_positions() && checkpoint_is_due()) TRY(checkpoint());
      return true;
    }
    TRY(advanced(vcpu, how));
    note_move(before);
    // An instruction that stopped where a page was missing, or that waits for others, has not been completed.
  } while (!at_end() && now() == before);
  // Nor has one at which the recorder stopped it.
  return machine().vcpu(vcpu).at_position() && machine().vcpu(vcpu).completed_stops() != completed &&
         machine().vcpu(vcpu).statistics().breakpoints == breakpoints;
}

Status Timeline::check_interruption() {
  if (options_.interrupt != nullptr && options_.interrupt->load(std::memory_order_relaxed))
    return fail(ErrorCode::kUsage, "interrupted at {}", to_text(now()));
  if (!interrupted_ || monotonic_ns() - asked_ns_ < kAskEveryNs) return {};
  asked_ns_ = monotonic_ns();
  return interrupted_() ? fail(ErrorCode::kUsage, "interrupted at {}", to_text(now())) : Status();
}

Status Timeline::run_to(const Mark& mark) {
  const Mark coarse = mark.without_steps();
  if (!at_end() && !caught_ && now() < coarse) {
    const PreemptionTimer::Beating beating(*preemption_timer_);
    while (!at_end() && !caught_ && now() < coarse) {
      TRY(advance_to(coarse));
      TRY(check_interruption());
    }
  }
  while (!at_end() && !caught_ && now() < mark && now().without_steps() == coarse) {
    TRY(step());
    TRY(check_interruption());
  }
  return {};
}

Status Timeline::run_to_end() {
  return run_to({end_event()});
}

Status Timeline::seek(const Mark& mark) {
  TRY(go_back_before([&](const Mark& other) { return other > mark; }));
  return run_to(mark);
}

// To the last checkpoint that is not after what is sought, or nowhere if it is nearer from here.
Status Timeline::go_back_before(const std::function<bool(const Mark&)>& is_after) {
  for (;;) {
    const auto after = std::ranges::find_if(
        checkpoints_, [&](const auto& checkpoint) { return is_after(checkpoint->mark); });
    const auto place = after == checkpoints_.begin() ? after : after - 1;
    Mark here = now();
    if (is_past_mark_) here.at.steps = ~0ull;
    if (!tainted_ && !is_after(here) && here >= (*place)->mark) return {};
    sought_ns_ = executed_ns_;
    const bool is_from_file = (*place)->promised.has_value();
    Status back = go_back(*place);
    if (!back && !is_from_file) return back;
    if (!back) {
      remark(**place, back.error().message);
    } else {
      TRY_ASSIGN(const bool kept, keeps_promise(**place));
      if (kept) return {};
    }
    checkpoints_.erase(place);
    tainted_ = true;
  }
}

// One from a file is looked at when it is put back for the first time.
Result<bool> Timeline::keeps_promise(Checkpoint& checkpoint) {
  if (!checkpoint.promised.has_value()) return true;
  TRY_ASSIGN(const uint64_t found, digest());
  if (found == std::exchange(checkpoint.promised, std::nullopt)) return true;
  remark(checkpoint, "the machine is not as it was when it was stored");
  return false;
}

void Timeline::remark(const Checkpoint& checkpoint, std::string_view why) const {
  if (options_.remark)
    options_.remark(
        fmt::format("{}{} is ignored: {}", log::kCheckpointPrefix, to_text(checkpoint.mark), why));
}

Result<size_t> Timeline::verify_checkpoints() {
  std::vector<Mark> marks;
  for (const auto& checkpoint : checkpoints_)
    if (checkpoint->promised.has_value()) marks.push_back(checkpoint->mark);
  size_t good = 0;
  // Each is put back even where another one is not far.
  for (const Mark& mark : marks) {
    tainted_ = true;
    TRY(go_back_before([&](const Mark& other) { return other > mark; }));
    good += now() == mark ? 1 : 0;
    TRY(check_interruption());
  }
  return good;
}

Status Timeline::seek_sum(uint64_t event, uint64_t sum) {
  const auto is_after = [&](const Mark& mark) {
    return mark.event > event ||
           (mark.event == event && (mark.at.sum() > sum || (mark.at.sum() == sum && mark.at.steps != 0)));
  };
  TRY(go_back_before(is_after));
  TRY(run_to({event}));
  return this->event() == event ? run_to_sum(sum) : Status();
}

Result<std::optional<Mark>> Timeline::run_watched(ExitWatcher& watcher, const Mark& end) {
  const auto note_exit = [this](VcpuId vcpu) { exited_ = {exited_.event, machine().vcpu(vcpu).position()}; };
  for (VcpuId vcpu; vcpu.raw < machine().vcpus(); ++vcpu)
    machine().vcpu(vcpu).watch({
        .entry = [&, vcpu] { return watcher.enter(vcpu); },
        .exit =
            [&, vcpu](vmm::ExitKind exit) {
              note_exit(vcpu);
              return watcher.look_at(vcpu, exit);
            },
        .part =
            [&, vcpu](vmm::ExitKind exit) {
              note_exit(vcpu);
              return watcher.catches_part(vcpu, exit);
            },
        .access = [&, vcpu](Gpa gpa, uint64_t bytes,
                            bool is_write) { return watcher.catches_access(vcpu, gpa, bytes, is_write); },
    });
  REPRISE_CHECK(!tainted_);  // else lift() would not be all
  tainted_ = true;
  watcher_ = &watcher;
  const Status ran = run_to(end.without_steps());
  watcher_ = nullptr;
  for (VcpuId vcpu; vcpu.raw < machine().vcpus(); ++vcpu) machine().vcpu(vcpu).watch({});
  TRY(ran);
  return caught_ ? std::optional(exited_) : std::nullopt;
}

Result<ReplayOutcome> Timeline::finish() {
  return replay_->finish();
}

Result<bool> Timeline::checkpoint() {
  if (tainted_ || !machine().can_be_saved()) return false;
  const auto vcpu = turn();
  const bool is_far = machine().is_far_between_positions();
  const bool at_a_place = steps_ == 0 && !(vcpu.has_value() && machine().vcpu(*vcpu).is_between_positions());
  if (is_past_mark_ || (!at_a_place && !is_far)) return false;
  const Mark mark = now();
  const auto place =
      std::ranges::find_if(checkpoints_, [&](const auto& other) { return !(other->mark < mark); });
  if (place != checkpoints_.end() && (*place)->mark == mark) return true;
  const uint64_t start = monotonic_ns();
  auto made = std::make_shared<Checkpoint>();
  made->mark = mark;
  made->executed_ns = executed_ns_;
  const auto equal = std::exchange(equal_, nullptr);
  TRY_ASSIGN(const auto written, machine().take_written_pages());
  TRY_ASSIGN(made->memory,
             MemorySnapshot::take(machine().memory(),
                                  place == checkpoints_.begin() ? nullptr : &(*(place - 1))->memory,
                                  {equal == nullptr ? nullptr : &equal->memory, written}));
  TRY_ASSIGN(made->machine, machine().save());
  for (uint32_t i = 0; i < machine().vcpus(); ++i)
    made->journals.push_back(replay_->journal(VcpuId(i)).save());
  made->order = replay_->order().save();
  made->left = left_;
  made->console_bytes = replay_->console().written();
  if (options_.store_checkpoints && files_.has_value()) {
    TRY_ASSIGN(const uint64_t now_digest, digest());
    TRY(files_->store(*made, now_digest));
  }
  equal_ = made;
  checkpoint_cost_ns_ = monotonic_ns() - start;
  checkpoints_.insert(place, std::move(made));
  ++checkpoints_made_;
  thin_out();
  return true;
}

Status Timeline::checkpoint_for_search() {
  if (!checkpoints_.empty() && since_checkpoint_ns() < std::max(kFarNs, checkpoint_cost_ns_)) return {};
  TRY(checkpoint());
  return {};
}

// Drops the checkpoint that is missed least: whose neighbours are nearest to each other, for how far they are
// from here.
void Timeline::thin_out() {
  if (checkpoints_.size() <= std::max<size_t>(options_.most_checkpoints, 2)) return;
  size_t least = 0;  // none: the beginning is kept
  double smallest = 0;
  for (size_t i = 1; i + 1 < checkpoints_.size(); ++i) {
    if (checkpoints_[i] == equal_) continue;  // the one that was just made: it would be due again at once
    // The same way does not take the same time twice, least of all in single steps: a later checkpoint may
    // seem to be the earlier one.
    const auto ns = [&](size_t at) { return static_cast<double>(checkpoints_[at]->executed_ns); };
    const double gap = std::abs(ns(i + 1) - ns(i - 1));
    const double distance = std::abs(static_cast<double>(executed_ns_) - ns(i));
    const double loss = gap / (distance + static_cast<double>(kNearestNs));
    if (least != 0 && loss >= smallest) continue;
    least = i;
    smallest = loss;
  }
  if (least != 0) checkpoints_.erase(checkpoints_.begin() + static_cast<ptrdiff_t>(least));
}

Status Timeline::go_back(const std::shared_ptr<Checkpoint>& place) {
  const Checkpoint& checkpoint = *place;
  const auto equal = std::exchange(equal_, nullptr);
  TRY_ASSIGN(const auto written, machine().take_written_pages());
  TRY(checkpoint.memory.put_back(machine().memory(), {equal == nullptr ? nullptr : &equal->memory, written}));
  equal_ = place;
  TRY(machine().restore(checkpoint.machine));
  for (uint32_t i = 0; i < machine().vcpus(); ++i)
    TRY(replay_->journal(VcpuId(i)).restore(checkpoint.journals[i]));
  replay_->order().restore(checkpoint.order);
  order_.go_to(Ticket(std::min(checkpoint.mark.event, order_.last().raw + 1)));
  steps_ = checkpoint.mark.at.steps;
  base_ = checkpoint.mark.without_steps();
  tainted_ = caught_ = is_past_mark_ = false;
  tainted_console_ = {};
  left_ = checkpoint.left;
  if (checkpoint.console_bytes > shown_) TRY(show_recorded(checkpoint.console_bytes));
  shown_ = std::max(shown_, checkpoint.console_bytes);
  replay_->console().seek(checkpoint.console_bytes);
  executed_ns_ = checkpoint.executed_ns;
  return {};
}

Result<uint64_t> Timeline::digest() {
  StateDigest digest;
  TRY_ASSIGN(uint64_t memory, machine().memory_digest());
  digest("memory", memory);
  uint64_t devices = machine().device_digest();
  digest("devices", devices);
  for (uint32_t i = 0; i < machine().vcpus(); ++i) {
    vmm::Vcpu& vcpu = machine().vcpu(VcpuId(i));
    TRY_ASSIGN(uint64_t registers, vcpu.digest());
    digest("registers", registers);
    uint64_t stops = vcpu.position().stops, ticks = vcpu.position().ticks.raw;
    digest("stops", stops);
    digest("ticks", ticks);
    // Of its log: how far it was taken. How far it was read ahead differs from way to way.
    uint64_t events = replay_->journal(VcpuId(i)).events();
    digest("events", events);
    digest.add(machine().view(VcpuId(i)).rights());
  }
  PageOrderState order = replay_->order().save();
  order.visit(digest);
  uint64_t next = order_.next().raw, written = replay_->console().written();
  digest("next", next);
  digest("console", written);
  return digest.value();
}

std::vector<CheckpointInfo> Timeline::checkpoints() const {
  std::vector<CheckpointInfo> infos;
  for (const auto& checkpoint : checkpoints_)
    infos.push_back({checkpoint->mark, checkpoint->memory.own_pages(), checkpoint->from_file});
  return infos;
}

uint64_t Timeline::checkpoint_bytes() const {
  std::unordered_set<const MemorySnapshot::Page*> pages;
  uint64_t bytes = 0;
  for (const auto& checkpoint : checkpoints_) {
    checkpoint->memory.add_pages(pages);
    for (const auto& cpu : checkpoint->machine.cpus)
      bytes += sizeof cpu + cpu.private_bytes.size() + cpu.rights.size();
    bytes += checkpoint->order.versions.size() * sizeof(checkpoint->order.versions[0]) +
             checkpoint->order.exclusive_tickets.size() * sizeof(checkpoint->order.exclusive_tickets[0]);
  }
  return bytes + pages.size() * kPageSize;
}

}  // namespace reprise::replay
