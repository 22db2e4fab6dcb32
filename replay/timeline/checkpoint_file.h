// Checkpoints beside the recording, so that a later session need not run to where it wants to be.
// docs/log-format.md describes the files.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "log/recording_reader.h"
#include "replay/timeline/checkpoint.h"

namespace reprise::replay {

// Those of one recording. A checkpoint holds what KVM says of a vCPU, so it is good on a host like the one
// that made it, with the same version of the program. Threads: confined to one.
class CheckpointFiles {
 public:
  // `recording` and `machine`, which is its, outlive it. Errors: kDamaged.
  static Result<CheckpointFiles> create(const log::Recording& recording, vmm::Machine& machine,
                                        log::pb::HostProfile host);

  // One file more. `digest`: of the machine now, which is at the checkpoint. Errors: kOutput, also
  // where it is too large.
  Status store(Checkpoint& checkpoint, uint64_t digest) const;
  // All that can be used, by mark; what was read until then, once `interrupt` is set, which may be null.
  // `remark` is called with a sentence for each of the others.
  [[nodiscard]] std::vector<std::unique_ptr<Checkpoint>> load(
      const std::function<void(const std::string&)>& remark, const std::atomic<bool>* interrupt) const;
  // Removes them all. Errors: kOutput.
  Status clear() const;

 private:
  CheckpointFiles(const log::Recording& recording, vmm::Machine& machine)
      : recording_(recording), machine_(machine) {}
  [[nodiscard]] std::vector<std::filesystem::path> files() const;
  Result<std::unique_ptr<Checkpoint>> read(const std::filesystem::path& path) const;
  Status check_origin(const log::pb::Checkpoint& file) const;
  Status check(const Checkpoint& checkpoint) const;

  const log::Recording& recording_;
  vmm::Machine& machine_;
  std::string identity_;  // of the recording
  log::pb::HostProfile host_;
};

}  // namespace reprise::replay
