// A recording's machine with its journals, ready to run again, and the comparison of its end with the
// recorded one.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "log/recording_reader.h"
#include "replay/console_check.h"
#include "replay/page_order.h"
#include "replay/replay_journal.h"
#include "replay/total_order.h"
#include "vmm/machine.h"
#include "vmm/session/outcome.h"

namespace reprise::replay {

struct ReplayOutcome {
  vmm::Outcome run;     // stop.reason is kLogEnded where the recording is a prefix
  uint64_t events = 0;  // of all logs, as far as they were replayed
  uint64_t packed_bytes = 0;
  bool complete = false;  // the recording has its end, and the replay agreed with it
};

// Threads: as Machine.
class ReplayMachine {
 public:
  // `total`: null for vCPUs that run in parallel; else the machine notes what is written, for checkpoints.
  // `moved_disks`: where the guest's first disk images are, if not where they were recorded. `recording` and
  // `total` outlive it. Errors: kDamaged; kHost if this host cannot show the recording's machine.
  static Result<std::unique_ptr<ReplayMachine>> create(const vmm::Kvm& kvm, const log::Recording& recording,
                                                       TotalOrder* total, vmm::ViewKind views,
                                                       std::span<const vmm::DiskOptions> moved_disks,
                                                       vmm::ConsoleSink console);

  [[nodiscard]] vmm::Machine& machine() { return *machine_; }
  [[nodiscard]] PageOrder& order() { return *order_; }
  [[nodiscard]] ReplayJournal& journal(VcpuId vcpu) {
    return static_cast<ReplayJournal&>(*journals_[vcpu.raw]);
  }
  [[nodiscard]] std::span<const std::unique_ptr<vmm::Journal>> journals() const { return journals_; }
  // What the guest writes is compared with what was recorded. Of a machine that goes back and forth (`total`)
  // it is for the caller to tell it what is written, in `console`.
  [[nodiscard]] ConsoleCheck& console() { return console_check_; }

  // Into the recording goes what was read of disk images; how many bytes that are. Requires: each disk
  // remembers. Errors: kOutput; kHost.
  Result<uint64_t> pack();

  // When every vCPU has left: what the run came to, compared with what was recorded. Errors: kDivergence.
  Result<ReplayOutcome> finish();

 private:
  ReplayMachine(const log::Recording& recording, ConsoleCheck check)
      : recording_(recording), console_check_(std::move(check)) {}

  const log::Recording& recording_;
  ConsoleCheck console_check_;
  std::unique_ptr<vmm::Machine> machine_;
  std::unique_ptr<PageOrder> order_;
  std::vector<std::unique_ptr<vmm::Journal>> journals_;
};

}  // namespace reprise::replay
