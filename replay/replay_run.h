// Runs a recording again, in parallel and at native speed, and compares it with itself on the way and at the
// end.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/result.h"
#include "log/recording_reader.h"
#include "vmm/machine.h"
#include "vmm/record/live_run.h"

namespace reprise::replay {

struct ReplayOptions {
  vmm::ViewKind views = vmm::ViewKind::kUserfault;
  vmm::ConsoleSink console;
  vmm::ProgressSink progress;  // may be empty
  const std::atomic<bool>* interrupt = nullptr;
  std::optional<std::filesystem::path> memory_file;  // guest RAM goes there at the end
  std::optional<std::filesystem::path> disk;         // where the guest's disk image is now; else where it was
};

struct ReplayOutcome {
  vmm::Outcome run;       // stop.reason is kLogEnded where the recording is a prefix
  uint64_t events = 0;    // of all logs, as far as they were replayed
  bool complete = false;  // the recording has its end, and the replay agreed with it
};

// Replays a recording to its end, or a prefix as far as it goes; less far, with stop.reason kInterrupted and
// no digests, when interrupted. Errors: kDivergence, with a report of both sides; kDamaged, also if the disk
// image is another; kNotFound if that is not there; kHost if this host cannot show the recording's machine.
Result<ReplayOutcome> replay(const vmm::Kvm& kvm, const log::Recording& recording,
                             const ReplayOptions& options);

}  // namespace reprise::replay
