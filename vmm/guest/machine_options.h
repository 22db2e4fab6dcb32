// What a machine is made from.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/device/disk/disk_image.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/msr_filter.h"
#include "vmm/register_digest.h"

namespace reprise::vmm {

// What counts ticks (vmm/clock/positioner.h).
enum class ClockKind {
  kAuto,        // the best that the guest has
  kSafepoints,  // compiled safepoints of all code
  kKernel,  // function entries of a Linux kernel (vmm/guest/linux/entry_clock.h), and safepoints of programs
  kStops,   // nothing but safepoints of programs
  kBranches,  // conditional branches, by a counter of the processor (vmm/clock/branch_positioner.h)
};

inline constexpr std::array<std::string_view, 5> kClockNames = {"auto", "safepoints", "kernel", "stops",
                                                                "branches"};
constexpr std::string_view name(ClockKind clock) {
  return kClockNames[static_cast<size_t>(clock)];
}

// Which vCPUs execute at the same time.
enum class ExecutionMode {
  kCrew,     // all: pages have owners
  kDomains,  // all, but one at a time while that is faster (ept/domains.h)
  kSerial,   // one at a time
};

inline constexpr std::array<std::string_view, 3> kModeNames = {"crew", "domains", "serial"};
constexpr std::string_view name(ExecutionMode mode) {
  return kModeNames[static_cast<size_t>(mode)];
}

struct MachineOptions {
  uint32_t vcpus = 1;
  uint64_t memory_bytes = 64ull << 20;
  std::vector<uint8_t> image;
  std::string command_line;
  std::vector<kvm_cpuid_entry2> cpuid;
  ViewKind views = ViewKind::kUserfault;  // where pages are taken from views
  ExecutionMode mode = ExecutionMode::kCrew;
  DigestScope digest_scope = DigestScope::kAll;  // of a vCPU's registers at the end
  MsrFilter msr_filter = MsrFilter::kAllowList;
  ClockKind clock = ClockKind::kAuto;
  int64_t start_unix_seconds = 0;  // the time of day at virtual time 0
  // `image` is a Linux kernel (bzImage or ELF), which runs with this initial RAM disk on the devices of a PC.
  // Needs mode serial.
  struct Linux {
    std::vector<uint8_t> initrd;
    std::vector<DiskOptions> disks = {};  // in the order in which the guest numbers them
    bool virtio_random = true;
    bool virtio_console = false;
  };
  std::optional<Linux> linux_guest;
  uint64_t memory_digest_every =
      0;  // k: the whole machine is compared at every k-th stop of each vCPU; 0: never. Needs mode serial
  bool note_writes = false;  // for Machine::take_written_pages()
  bool free_run = false;     // nothing is recorded: any image will do

  // How memory is protected in this machine: no view is ever taken a page from where one vCPU executes at a
  // time, or nothing is recorded.
  [[nodiscard]] ViewKind used_views() const { return is_unprotected() ? ViewKind::kUnprotected : views; }
  [[nodiscard]] bool is_unprotected() const { return mode == ExecutionMode::kSerial || free_run; }
};

}  // namespace reprise::vmm
