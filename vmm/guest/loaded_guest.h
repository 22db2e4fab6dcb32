// A guest in the memory of its machine, and what the machine must have for it.
#pragma once

#include <memory>
#include <optional>

#include "base/result.h"
#include "vmm/device/board.h"
#include "vmm/device/disk/disk_image.h"
#include "vmm/device/uart16550.h"
#include "vmm/guest/boot_state.h"
#include "vmm/guest/guest_kernel.h"
#include "vmm/guest/machine_options.h"
#include "vmm/guest_memory.h"

namespace reprise::vmm {

// Where compiled safepoints count, and where they stop (docs/guest-abi.md, "clock page").
struct SafepointPages {
  Gpa clock;  // in the private range
  Gpa trap;   // no RAM
};

struct LoadedGuest {
  std::unique_ptr<GuestMemory> memory;  // outlives the board, whose devices write to it
  BootState boot;
  PrivateRange private_range;                     // of each vCPU
  std::optional<SafepointPages> safepoints;       // none: nothing in the guest has any
  ClockKind clock = ClockKind::kStops;            // what counts; never kAuto
  std::string why_no_kernel_clock;                // kStops: one sentence
  std::vector<std::unique_ptr<DiskImage>> disks;  // outlive the board
  std::unique_ptr<Board> board;
  std::unique_ptr<GuestKernel> kernel;  // null: the guest's code is as it was built
};

// Errors: kBadImage, kUsage, kHost; those of DiskImage::open().
Result<LoadedGuest> load_guest(const MachineOptions& options, ConsoleSink console);
// What load_guest() does for an ELF image (bare/bare_guest.cc) and for a Linux kernel (linux/linux_guest.cc).
Result<LoadedGuest> load_bare_guest(const MachineOptions& options, ConsoleSink console);
Result<LoadedGuest> load_linux_guest(const MachineOptions& options, ConsoleSink console);

}  // namespace reprise::vmm
