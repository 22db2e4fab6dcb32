// A replay as a line of moments, one vCPU at a time, on which one can go forwards and backwards.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "replay/replay_machine.h"
#include "replay/timeline/checkpoint_file.h"
#include "replay/timeline/mark.h"
#include "replay/timeline/preemption_timer.h"
#include "replay/total_order.h"

namespace reprise::replay {

struct TimelineOptions {
  vmm::ViewKind views = vmm::ViewKind::kUserfault;
  std::vector<vmm::DiskOptions> moved_disks;     // as ReplayOptions::moved_disks
  vmm::ConsoleSink console;                      // sees each byte once, when the replay first comes to it
  const std::atomic<bool>* interrupt = nullptr;  // set by others: run_to() and seek() end with kUsage
  // Of executing, ten times as much for a guest with a PC's devices, and more where making one takes long;
  // 0: no checkpoints but the first.
  uint64_t checkpoint_every_ns = 100'000'000;
  size_t most_checkpoints = 128;  // thinned exponentially: dense near the present, sparse far from it
  // Checkpoints that are made go to files beside the recording, in the place of those that are there; else
  // those that are there are used.
  bool store_checkpoints = false;
  std::function<void(const std::string&)>
      remark;  // takes a sentence about a file that cannot be used; may be empty
};

// Looks at the machine while the timeline runs it, and may change it for that
// (replay/debug/candidate_search.h).
class ExitWatcher {
 public:
  virtual ~ExitWatcher() = default;
  // As vmm::VcpuWatch.
  virtual Status enter(VcpuId vcpu) = 0;
  virtual Result<vmm::WatchVerdict> look_at(VcpuId vcpu, vmm::ExitKind exit) = 0;
  virtual bool catches_part(VcpuId vcpu, vmm::ExitKind exit) = 0;
  virtual Result<bool> catches_access(VcpuId vcpu, Gpa gpa, uint64_t bytes, bool is_write) = 0;
  // Whether it has something to say about what devices have done since it was asked last.
  virtual bool catches_devices() = 0;
  // Takes out of the machine what it has put there, up to the next entry. False, and it stays: the machine is
  // not, or may not be, as it would be without the watcher.
  virtual bool lift() = 0;
};

struct CheckpointInfo {
  Mark mark;
  uint64_t own_pages = 0;  // kept for it alone when it was made
  bool from_file = false;  // found beside the recording
};

// Going back is going forward again from the last checkpoint before. A checkpoint holds all of the machine:
// RAM (pages shared with the checkpoint before), vCPUs, devices, views, and where each journal is in its log.
// Threads: confined to the thread that creates it, which runs all vCPUs.
class Timeline {
 public:
  // At the beginning. `kvm` and `recording` outlive it. Errors: as ReplayMachine::create();
  // kUsage when interrupted.
  static Result<std::unique_ptr<Timeline>> open(const vmm::Kvm& kvm, const log::Recording& recording,
                                                TimelineOptions options);

  [[nodiscard]] Mark now();
  [[nodiscard]] bool at_end() { return !turn().has_value(); }
  // Where the last vCPU has left.
  [[nodiscard]] uint64_t end_event() { return order_.last().raw + 1 + machine().vcpus(); }
  // Whose turn it is now, and at an event; nobody's at the end.
  [[nodiscard]] std::optional<VcpuId> turn() const;
  [[nodiscard]] std::optional<VcpuId> owner_of(uint64_t event) const;

  // Up to the vCPU's next stop, or to `until`, or less far; makes checkpoints on the way. Requires:
  // !at_end(). Errors: kDivergence, kDamaged, kHost.
  Status advance(const std::optional<Mark>& until);
  // One instruction of the vCPU whose turn it is, if it can be stepped over by itself; else on to the next
  // stop or tick of that vCPU, or until it is another one's turn. True: instructions have been completed.
  // Requires: !at_end(). Errors: as advance().
  Result<bool> step();
  // To the first moment that is not before `mark`, from here on; at most to the end. Errors: as advance();
  // kUsage when interrupted.
  Status run_to(const Mark& mark);
  Status run_to_end();
  // The same, from wherever it is. Errors: the same.
  Status seek(const Mark& mark);
  // At the end: compares it with the recorded one. Errors: kDivergence.
  Result<ReplayOutcome> finish();

  // To where, in this event, the stops and ticks of its vCPU together are `sum` or more: a measure of how far
  // it has come. To the next event, if they never are. Errors: the same.
  Status seek_sum(uint64_t event, uint64_t sum);

  // Puts back each checkpoint that came from a file. How many are as they were when they were stored; the
  // others are dropped, with a remark. Errors: kHost; kUsage when interrupted.
  Result<size_t> verify_checkpoints();

  // From here to before `end`, with `watcher` looking at each exit: the moment of the exit that it caught, if
  // it caught one. The clock may be one ahead of the last position, in the middle of a safepoint. The watcher
  // changes the machine, so it is left where only seek() leads on, with now() undefined: *detect dirtily,
  // arrive cleanly*. Makes checkpoints on the way for as long as the watcher can lift what it did. Requires:
  // is_at_mark(). Errors: as run_to(); those of the watcher.
  Result<std::optional<Mark>> run_watched(ExitWatcher& watcher, const Mark& end);
  // Whether only seek() leads on.
  [[nodiscard]] bool is_tainted() const { return tainted_; }
  // Whether the machine is where now() says; else a seek() there leads back. A run that was interrupted may
  // have stopped between two positions.
  [[nodiscard]] bool is_at_mark() const { return !tainted_ && !is_past_mark_; }
  // From here on the machine may be changed; only seek() leads on, until which `console`, if it is not empty,
  // takes what the guest writes.
  void taint(vmm::ConsoleSink console = {}) {
    tainted_ = true;
    tainted_console_ = std::move(console);
  }
  // Asked every now and then while it runs: true interrupts.
  void set_interruption(std::function<bool()> interrupted) { interrupted_ = std::move(interrupted); }

  // Of all that makes up this moment. Equal moments, equal digests. Errors: kHost.
  [[nodiscard]] Result<uint64_t> digest();
  // Makes a checkpoint here, if no vCPU is in the middle of an exit. Errors: kHost.
  Result<bool> checkpoint();
  // The same, if it takes long to come here from the last one before. Errors: kHost.
  Status checkpoint_for_search();
  [[nodiscard]] std::vector<CheckpointInfo> checkpoints() const;
  [[nodiscard]] uint64_t checkpoints_made() const { return checkpoints_made_; }
  // What they all hold: pages of memory, each counted once, and the rest. Cost: looks at all of them.
  [[nodiscard]] uint64_t checkpoint_bytes() const;
  [[nodiscard]] vmm::Machine& machine() { return replay_->machine(); }

 private:
  Timeline(TotalOrder order, TimelineOptions options)
      : order_(std::move(order)), options_(std::move(options)) {}
  Status open_checkpoint_files(const log::Recording& recording, const vmm::Kvm& kvm);
  [[nodiscard]] uint64_t event() const;
  Status advance_to(const std::optional<Mark>& until);  // Requires: beats, for spins are stopped by them
  Status go_on();
  Status run_to_sum(uint64_t sum);
  Status advanced(VcpuId vcpu, vmm::Vcpu::Advance how);
  void note_move(const Mark& before);
  void wrote(uint8_t byte);
  Status show_recorded(uint64_t end);
  Status check_interruption();
  Status go_back_before(const std::function<bool(const Mark&)>& is_after);
  Status go_back(const std::shared_ptr<Checkpoint>& checkpoint);
  void remark(const Checkpoint& checkpoint, std::string_view why) const;
  Result<bool> keeps_promise(Checkpoint& checkpoint);
  [[nodiscard]] bool checkpoint_is_due();
  Status checkpoint_on_the_way();
  void thin_out();
  [[nodiscard]] uint64_t since_checkpoint_ns();

  TotalOrder order_;
  TimelineOptions options_;
  std::unique_ptr<ReplayMachine> replay_;
  std::unique_ptr<PreemptionTimer> preemption_timer_;
  std::vector<bool> left_;                                // vCPUs that execute nothing any more
  std::vector<std::shared_ptr<Checkpoint>> checkpoints_;  // by mark
  std::shared_ptr<const Checkpoint>
      equal_;  // whose memory the machine's was last; since then it notes what is written
  uint64_t checkpoints_made_ = 0;
  std::optional<CheckpointFiles> files_;
  // The moment is this many instructions after `base_`.
  uint64_t steps_ = 0;
  Mark base_;
  Mark exited_;           // the last exit, while run_watched() runs
  bool tainted_ = false;  // by run_watched(), or by who changes it
  // Where it is far between positions: some instructions behind the last one, nobody knows how many.
  bool is_past_mark_ = false;
  bool caught_ = false;
  ExitWatcher* watcher_ = nullptr;  // while run_watched() runs
  std::function<bool()> interrupted_;
  uint64_t asked_ns_ = 0;            // when it was asked last
  uint64_t executed_ns_ = 0;         // from the beginning to here
  uint64_t sought_ns_ = 0;           // to where it was when it went back: what is sought is at most that far
  uint64_t checkpoint_cost_ns_ = 0;  // of the last one
  std::optional<log::ConsoleReader> recorded_console_;
  uint64_t shown_ = 0;  // bytes of the console, up to the furthest moment so far
  vmm::ConsoleSink tainted_console_;
};

}  // namespace reprise::replay
