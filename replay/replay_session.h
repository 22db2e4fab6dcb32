// Runs a recording again, in parallel and at native speed, and compares it with itself on the way and at the
// end.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/stopwatch.h"
#include "log/recording_reader.h"
#include "replay/replay_machine.h"
#include "vmm/session/session.h"

namespace reprise::replay {

struct ReplayOptions {
  vmm::ViewKind views = vmm::ViewKind::kUserfault;
  vmm::ConsoleSink console;                          // sees each byte as the guest writes it, on any thread
  std::optional<std::filesystem::path> memory_file;  // guest RAM goes there at the end
  // Where the guest's first disk images are now, and in which format, if not where they were.
  std::vector<vmm::DiskOptions> moved_disks;
  bool packs = false;  // what is read of disk images goes into the recording, once the replay was found equal
};

// Threads: as Session.
class ReplaySession final : public vmm::Session {
 public:
  // `recording` outlives the session. Errors: those of ReplayMachine::create().
  static Result<std::unique_ptr<ReplaySession>> create(const vmm::Kvm& kvm, const log::Recording& recording,
                                                       ReplayOptions options);
  ~ReplaySession() override;

  // Waits until the recording's end, or that of a prefix; less far, with stop.reason kInterrupted and no
  // digests, where stop() came first: what was compared until then was equal. Call once, after start().
  // Errors: kDivergence, with a report of both sides; kDamaged.
  Result<ReplayOutcome> wait();

  [[nodiscard]] vmm::Progress progress() const override;

 private:
  ReplaySession(const log::Recording& recording, ReplayOptions options)
      : recording_(recording), options_(std::move(options)) {}
  void abort();

  void let_time_pass(bool passes) override;
  bool tell_to_stop() override;

  const log::Recording& recording_;
  const ReplayOptions options_;
  std::unique_ptr<ReplayMachine> replay_;
  Stopwatch running_;  // without pauses
  std::atomic<bool> interrupted_{false};
};

}  // namespace reprise::replay
