// Counts the conditional branches that a guest retires, by a counter of the processor: the clock that every
// guest has, and the only one that names each instruction.
//
// The counter counts while the guest executes on the calling thread (perf's exclude_host), and its overflow
// is a signal, which ends KVM_RUN. Neither leaves a trace in the guest. An interrupt of a counter comes late,
// by some branches (skid); a count that is read is exact, if the processor is one on which that was tried
// (vmm/host/branch_check.h). Instructions that KVM emulates are not counted.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace reprise::vmm {

// The event that counts retired conditional branches on a processor.
struct BranchEvent {
  std::string name;     // libpfm4's, or "raw 0x..."
  uint32_t type = 0;    // as in struct perf_event_attr
  uint64_t config = 0;  // the same
  [[nodiscard]] bool operator==(const BranchEvent&) const = default;
};

// Of the processor that this runs on. Errors: kHost, one sentence, where none is known.
Result<BranchEvent> find_branch_event();
// The same by a processor's CPUID: vendor ("GenuineIntel"), family and model with their extensions. Only
// processors that libpfm4 may not know.
std::optional<uint64_t> raw_branch_event(const std::string& vendor, unsigned family, unsigned model);

// Of one vCPU. Threads: confined to the thread that runs the vCPU, which may change between two entries.
class BranchCounter {
 public:
  virtual ~BranchCounter() = default;

  // How many branches the vCPU has retired, at its last exit. Exact.
  [[nodiscard]] virtual uint64_t count() const = 0;
  // From now on KVM_RUN is interrupted when the count comes to `count` or, by the skid, soon after; nothing:
  // it is not. A signal that was on its way may still come.
  virtual void signal_at(std::optional<uint64_t> count) = 0;
  // Around each KVM_RUN. Errors: kHost.
  virtual Status entering() = 0;
  virtual Status exited() = 0;
};

// By perf_event_open(2).
class PerfBranchCounter final : public BranchCounter {
 public:
  explicit PerfBranchCounter(BranchEvent event) : event_(std::move(event)) {}

  [[nodiscard]] uint64_t count() const override { return count_; }
  void signal_at(std::optional<uint64_t> count) override { signal_at_ = count; }
  Status entering() override;
  Status exited() override;

 private:
  Status open();

  const BranchEvent event_;
  uint64_t count_ = 0;
  std::optional<uint64_t> signal_at_;
  // Two events: one that makes signals may be throttled by the kernel, and then misses branches.
  UniqueFd counting_, signalling_;
  pid_t thread_ = 0;  // on which they count; 0: none
  uint64_t at_entry_ = 0;
  bool armed_ = false;
};

}  // namespace reprise::vmm
