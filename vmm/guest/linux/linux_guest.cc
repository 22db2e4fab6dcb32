#include "base/check.h"
#include "vmm/device/pc_board.h"
#include "vmm/guest/linux/kernel_unpack.h"
#include "vmm/guest/linux/linux.h"
#include "vmm/guest/linux/linux_kernel.h"
#include "vmm/guest/loaded_guest.h"

namespace reprise::vmm {

Result<LoadedGuest> load_linux_guest(const MachineOptions& options, ConsoleSink console) {
  if (options.vcpus > kMaxLinuxVcpus)
    return fail(ErrorCode::kUsage, "{} vCPUs asked for, a Linux guest can have 1 to {}", options.vcpus,
                kMaxLinuxVcpus);
  TRY_ASSIGN(const auto kernel, unpack_kernel(options.image));
  const auto& wanted = *options.linux_guest;
  LoadedGuest guest;
  VirtioOptions virtio{.random = wanted.virtio_random, .console = wanted.virtio_console};
  for (const DiskOptions& each : wanted.disks) {
    TRY_ASSIGN(auto disk, DiskImage::open(each));
    virtio.disks.push_back(disk.get());
    guest.disks.push_back(std::move(disk));
  }
  const auto slots = slots_of(virtio);
  TRY_ASSIGN(guest.memory, GuestMemory::create(linux_ram(options.memory_bytes), options.is_unprotected()));
  TRY_ASSIGN(LoadedLinux loaded, load_linux({.kernel = kernel,
                                             .initrd = wanted.initrd,
                                             .command_line = options.command_line,
                                             .vcpus = options.vcpus,
                                             .memory_bytes = options.memory_bytes,
                                             .virtio = slots,
                                             .with_clock = options.clock != ClockKind::kStops},
                                            guest.memory->writable(Gpa(0), guest.memory->bytes())));
  guest.boot = loaded.boot;
  if (loaded.patches.clock.has_value()) {
    guest.clock = ClockKind::kKernel;
  } else {
    guest.why_no_kernel_clock = loaded.patches.clock.error().message;
    if (options.clock == ClockKind::kKernel)
      return fail(ErrorCode::kUsage, "this kernel has no kernel clock: {}; use --clock stops",
                  guest.why_no_kernel_clock);
  }
  guest.kernel = std::make_unique<LinuxKernel>(std::move(loaded.patches));
  guest.private_range = {kProgramClock, kProgramClock + kPageSize};
  guest.safepoints = SafepointPages{kProgramClock, kProgramTrap};
  guest.board = std::make_unique<PcBoard>(PcBoardOptions{.vcpus = options.vcpus,
                                                         .start_unix_seconds = options.start_unix_seconds,
                                                         .console = std::move(console),
                                                         .virtio = virtio});
  return guest;
}

}  // namespace reprise::vmm
