// A throw-away fork of the machine, which a debugger may change: from one moment of a recording on it goes
// another way than it was recorded.
//
// It is the replay's machine itself, with journals that make up what no log has. What is done to it is undone
// as what a search does is: the timeline is tainted, and seeks the moment where the fork began.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "log/recording_reader.h"
#include "replay/debug/diverted_journal.h"
#include "replay/debug/registers.h"
#include "replay/debug/stop.h"
#include "replay/debug/stop_search.h"
#include "replay/timeline/preemption_timer.h"
#include "replay/timeline/timeline.h"

namespace reprise::replay {

// One vCPU executes at a time: the one that is stepped, alone; from the one that is resumed on, each until it
// waits or has had its slice of time. Threads: confined to the timeline's.
class Diversion {
 public:
  // All three outlive it. Errors: kHost.
  static Result<std::unique_ptr<Diversion>> begin(Timeline& timeline, const log::Recording& recording,
                                                  StopSearch& stops);

  [[nodiscard]] const Mark& origin() const { return origin_; }
  // Back to there; nothing but the destructor may be called then. Errors: as Timeline::seek().
  Status end() { return timeline_.seek(origin_); }

  // As DebugTarget's.
  Status set_registers(VcpuId vcpu, const Registers& registers);
  Status write(VcpuId vcpu, Gva address, std::span<const uint8_t> bytes);
  Status write_physical(Gpa address, std::span<const uint8_t> bytes);
  // Natively, or one instruction at a time if memory is watched. Errors: kGuest if the machine does not go
  // on: all halt, for one; kHost.
  Result<StopEvent> resume(VcpuId vcpu, RunListener& listener);
  Result<StopEvent> step(VcpuId vcpu, RunListener& listener);
  // What the guest has written since this was called last, of much its end.
  [[nodiscard]] std::string take_console() { return std::exchange(console_, {}); }

 private:
  Diversion(Timeline& timeline, const log::Recording& recording, StopSearch& stops);
  [[nodiscard]] vmm::Machine& machine() { return timeline_.machine(); }
  Result<uint64_t> last_time() const;
  void wrote(uint8_t byte);
  static Status write_at(uint64_t address, std::span<const uint8_t> bytes,
                         const std::function<uint8_t*(uint64_t)>& find);
  // What a debugger calls returns to a breakpoint on the stack, which a kernel does not let be executed.
  Status make_breakpoints_executable(VcpuId vcpu);
  Result<StopSearch::Stop> breakpoint_here(VcpuId vcpu);
  // One instruction, or as much as Vcpu::step() takes; true: it has been completed.
  Result<bool> step_once(VcpuId vcpu);
  // Natively, from this vCPU on, to the next address with a breakpoint; which vCPU is there, or has the turn
  // when it is interrupted.
  Result<VcpuId> run(VcpuId vcpu, Interruption& interruption);
  // Errors: kGuest if the machine has stopped.
  [[nodiscard]] Status check_on() const;
  // After this vCPU has executed: whose turn it is. Errors: kGuest if the machine does not go on.
  Result<VcpuId> turn_after(VcpuId vcpu);

  Timeline& timeline_;
  const log::Recording& recording_;
  StopSearch& stops_;
  const Mark origin_;
  std::vector<Position> positions_;  // of each vCPU, there
  DivertedWorld world_;
  std::vector<std::unique_ptr<DivertedJournal>> journals_;
  PreemptionTimer preemption_timer_;  // whoever computes for long is asked whether to go on
  std::string console_;               // the last of what the guest wrote since take_console()
  uint64_t slice_ns_ = 0;             // host's time when the turn began
};

}  // namespace reprise::replay
