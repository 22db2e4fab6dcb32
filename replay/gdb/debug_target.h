// What the GDB stub asks of a replay: the seam between the meaning of packets (server.h) and the timeline
// behind them.
//
// The machine is always at one Mark: a point in the recorded total order, in which one vCPU executes at a
// time. "Forward" and "backward" move along that order; what is asked of one vCPU moves all the others with
// it, as they were recorded.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "replay/debug/registers.h"
#include "replay/debug/stop.h"
#include "replay/timeline/mark.h"

namespace reprise::replay::gdb {

enum class Direction : uint8_t { kForward, kBackward };

struct Checkpoint {
  uint32_t number = 0;
  Mark mark;
};

struct LastWrite {
  Mark mark;  // before it
  VcpuId vcpu;
  Gva rip;                 // where that vCPU stood
  bool by_device = false;  // because of what `vcpu` did
};

// Threads: confined to the thread that serves GDB.
class DebugTarget {
 public:
  virtual ~DebugTarget() = default;

  // --- the machine at this moment ---

  [[nodiscard]] virtual uint32_t vcpu_count() const = 0;  // 1 to kMaxVcpus
  // "running", "halted", "waiting for page 0x216": a few words.
  [[nodiscard]] virtual std::string vcpu_state(VcpuId vcpu) const = 0;
  [[nodiscard]] virtual Result<Registers> registers(VcpuId vcpu) const = 0;
  // Copies what there is from `address` on, up to the first byte that is not mapped; returns how many bytes.
  // Whether the guest could read them at its privilege level does not matter. Leaves no trace, accessed bits
  // neither.
  [[nodiscard]] virtual size_t read(VcpuId vcpu, Gva address, std::span<uint8_t> out) const = 0;
  // Of pages that each vCPU has its own of, that of `vcpu`.
  [[nodiscard]] virtual size_t read_physical(VcpuId vcpu, Gpa address, std::span<uint8_t> out) const = 0;
  // Above all RAM, a multiple of the page size; there may be holes below.
  [[nodiscard]] virtual Gpa ram_end() const = 0;
  // Through the page tables of `vcpu`; nothing if it is not mapped.
  [[nodiscard]] virtual std::optional<Gpa> translate(VcpuId vcpu, Gva address) const = 0;

  // --- the recorded order ---

  [[nodiscard]] virtual Mark now() const = 0;
  [[nodiscard]] virtual Mark begin() const = 0;
  [[nodiscard]] virtual Mark end() const = 0;
  // Errors: kUsage if the mark is not in the recording, or in a diversion, and then nothing has moved; kUsage
  // also if interrupted; kDivergence and others as the replay's.
  virtual Status seek(const Mark& mark, Interruption& interruption) = 0;

  // Runs until something stops it. Breakpoints:
  // - Forward, one stops the vCPU that is about to execute its address, also where it has been standing all
  // the time: GDB takes it
  //   away while it steps from there. Backward, one stops the vCPU that comes to stand at its address; not
  //   where it started.
  // - A watchpoint looks at accesses by guest instructions and by devices; to kRead a read-modify-write is a
  // read as well. Errors: as seek(); after one the target is at some mark and can be asked on.
  // `diverted`: the vCPU that executes first in a diversion; of no meaning outside of one.
  virtual Result<StopEvent> resume(Direction direction, VcpuId diverted, RunListener& listener) = 0;
  // Runs until `vcpu` has executed one instruction; backward, until it has yet to execute the last one that
  // it executed before now. Others are not held: what they were recorded to do in between, they do (or undo),
  // and their breakpoints and all watchpoints stop the machine. A breakpoint where `vcpu` stands now does
  // not. An interrupt or exception that is delivered is no instruction of its own.
  virtual Result<StopEvent> step(VcpuId vcpu, Direction direction, RunListener& listener) = 0;

  // Both may come in any order and number; inserting one that is there, or removing one that is not, is no
  // error. GDB removes all at each stop and inserts them again before it goes on: nothing should be planted
  // before the machine runs.
  // Errors: kHost if this one cannot be had here.
  virtual Status insert(const Breakpoint& breakpoint) = 0;
  virtual Status remove(const Breakpoint& breakpoint) = 0;

  // --- diversions: a throw-away fork of the machine, that may be changed, and runs forward only ---

  // In it a step is one of that vCPU alone; resumed, all of them go on. Errors: kUsage if there is one
  // already.
  virtual Status begin_diversion() = 0;
  // Throws it away; the machine is where it was. Nothing if there is none. Errors: as seek(), but for
  // interruptions.
  virtual Status end_diversion() = 0;
  [[nodiscard]] virtual bool in_diversion() const = 0;
  // What the guest has written to its console in this diversion since the last call.
  [[nodiscard]] virtual std::string take_diverted_console() = 0;
  // Errors: kUsage outside of a diversion; kNotFound if not all of the range is RAM, and then nothing is
  // written.
  virtual Status set_registers(VcpuId vcpu, const Registers& registers) = 0;
  virtual Status write(VcpuId vcpu, Gva address, std::span<const uint8_t> bytes) = 0;
  virtual Status write_physical(Gpa address, std::span<const uint8_t> bytes) = 0;

  // --- what only a recording can answer ---

  // Keeps the machine's state at now(), and gives it the next number from 1 on.
  virtual Result<Checkpoint> make_checkpoint() = 0;
  // Those, and before them those that were found beside the recording.
  [[nodiscard]] virtual std::vector<Checkpoint> checkpoints() const = 0;
  // What each vCPU may do with the page now, by vCPU. Nothing: each has its own.
  [[nodiscard]] virtual std::optional<std::vector<Right>> rights(PageNumber page) const = 0;
  // The last write to the byte before now; nothing if there is none. The machine is where it was. Errors:
  // kUsage in a diversion, for what cannot be watched, and if interrupted; as seek().
  virtual Result<std::optional<LastWrite>> last_write(Gpa address, Interruption& interruption) = 0;
  // Of registers, memory and devices now. Errors: kHost.
  virtual Result<uint64_t> digest() = 0;
};

}  // namespace reprise::replay::gdb
