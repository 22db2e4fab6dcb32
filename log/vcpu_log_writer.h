// One vCPU's log while it is being written.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/result.h"
#include "log/block_writer.h"
#include "log/event_codec.h"
#include "log/event_queue.h"

namespace reprise::log {

// Threads: append() is for the vCPU's own thread, everything else for the writer thread of RecordingWriter.
class VcpuLogWriter {
 public:
  VcpuLogWriter(std::unique_ptr<BlockWriter> file, WakeUp& wake_up, size_t limit_bytes);

  // Adds the next event of this vCPU. Never fails: an error of the disk shows in RecordingWriter::failed(),
  // and events are dropped from then on. Requires: positions do not go back, tickets increase, nothing
  // follows End (verify_recording() would call the recording damaged). Cost: about 60 ns (80 to 100 beside a
  // busy writer thread), no allocation in the steady state; waits while the disk is far behind.
  void append(Event&& event) { queue_.append(std::move(event)); }
  void append(const Event& event) { queue_.append(Event(event)); }

  // Moves what is queued into blocks and writes the full ones; with `flush` also the last, partial one.
  // Errors: kOutput.
  Status drain(bool flush);

  void close() { queue_.close(); }
  [[nodiscard]] const BlockWriter& file() const { return *file_; }

 private:
  EventQueue queue_;
  const std::unique_ptr<BlockWriter> file_;
  BlockEncoder encoder_;
  std::vector<Event> batch_;
};

}  // namespace reprise::log
