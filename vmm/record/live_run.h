// A run against the real world: recorded, or (to compare with) not.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ept/crew.h"
#include "ept/policy.h"
#include "log/schema.pb.h"
#include "vmm/machine.h"
#include "vmm/record/machine_description.h"

namespace reprise::vmm {

// How far a run is, for people who wait for it.
struct Progress {
  uint64_t wall_ns = 0;
  uint64_t transitions = 0;
  uint64_t of_transitions = 0;  // 0: nobody knows
  uint64_t log_bytes = 0;
};
// Called some times a second, on a thread of the run's own.
using ProgressSink = std::function<void(const Progress&)>;

struct LiveOptions {
  // The machine, and what a recording's manifest says beside it; what is known only later (of the disk, what
  // the recording's files hold) is filled in.
  log::pb::Manifest description;
  GuestFiles files;
  ViewKind views = ViewKind::kUserfault;
  bool free_run = false;  // as MachineOptions
  // Where to record; nothing: no recording is made.
  std::optional<std::filesystem::path> folder;
  // Bytes for the guest's console are taken from here while the run lasts; negative: there are none. Ends
  // without ending the run.
  int console_input = -1;
  std::optional<uint8_t> console_escape;  // the byte there that ends the run
  ept::PolicyOptions policy;
  std::optional<std::filesystem::path> memory_file;  // guest RAM goes there at the end
  double pace = 1;                                   // see World
  ConsoleSink console;                               // sees each byte as the guest writes it
  ProgressSink progress;                             // may be empty
  const std::atomic<bool>* interrupt = nullptr;      // set by a signal handler: the run is to end cleanly
};

// What a run came to.
struct Outcome {
  MachineStop stop;
  uint64_t memory_digest = 0;
  std::vector<uint64_t> register_digests;  // one a vCPU
  uint64_t tickets = 0;                    // transitions
  uint64_t wall_ns = 0;
  uint64_t log_bytes = 0;
  std::vector<VcpuStatistics> vcpus;
  std::vector<ept::CrewTimes> crew;  // empty for a replay
  bool patches_modules = true;       // false: a Linux kernel whose modules nobody looks through
};

// Runs a guest to its end. If `folder` is given, everything that a replay needs is in it afterwards; after an
// error, what was recorded until then (a prefix, which replays). Errors: those of Machine::create() and
// RecordingWriter::create(); kOutput when the recording, or what the guest writes to its disk, cannot be
// written on; kHost when its disk image cannot be read, or is changed meanwhile; kGuest when the guest passes
// no safepoint.
Result<Outcome> run_live(const Kvm& kvm, const LiveOptions& options);

}  // namespace reprise::vmm
