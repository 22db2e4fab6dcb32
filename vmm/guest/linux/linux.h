// From a Linux kernel, an initial RAM disk and a command line to the state in which the kernel's first
// instruction runs: the 64-bit boot protocol. Source: Linux Documentation/arch/x86/boot.rst, zero-page.rst.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/device/virtio/virtio_mmio.h"
#include "vmm/guest/boot_state.h"
#include "vmm/guest/linux/kernel_patch.h"
#include "vmm/guest_memory.h"

namespace reprise::vmm {

// RAM reaches from 0 to here, and goes on at kHighRamBegin: in between are the devices of a PC.
inline constexpr uint64_t kLowRamEnd = 3ull << 30;
inline constexpr uint64_t kHighRamBegin = 4ull << 30;
// The flat logical addressing of interrupts, which Linux uses up to there, reaches so many.
inline constexpr uint32_t kMaxLinuxVcpus = 8;
inline constexpr uint64_t kMinLinuxRamBytes = 64ull << 20;
inline constexpr uint64_t kMaxLinuxRamBytes = 63ull << 30;  // with the hole, what 36 address bits reach
inline constexpr size_t kMaxLinuxCommandLine = 2047;        // COMMAND_LINE_SIZE - 1

// Where programs that were compiled with safepoints find their clock page, of which each vCPU has its own,
// and the page that stops the vCPU (docs/guest-abi.md, "Programs of a Linux guest"). The first is RAM that
// the kernel's memory map leaves out, where a PC has the ROMs of its cards: /dev/mem gives it to root,
// cached. The other is no RAM.
inline constexpr Gpa kProgramClock{0xd0000};
inline constexpr Gpa kProgramTrap{0xfed80000};

// Where so many bytes of RAM are.
constexpr RamLayout linux_ram(uint64_t memory_bytes) {
  if (memory_bytes <= kLowRamEnd) return {.bytes = memory_bytes};
  return {.bytes = memory_bytes + (kHighRamBegin - kLowRamEnd),
          .hole_begin = Gpa(kLowRamEnd),
          .hole_end = Gpa(kHighRamBegin)};
}

// What a kernel must be told so that it behaves on this machine, each word with its reason in linux.cc. Goes
// before the user's own.
std::string linux_command_line(std::string_view user);

struct LinuxGuest {
  std::span<const uint8_t> kernel;  // an ELF file, see unpack_kernel()
  std::span<const uint8_t> initrd;  // may be empty
  std::string_view command_line;    // the user's
  uint32_t vcpus = 1;
  uint64_t memory_bytes = 0;
  std::span<const VirtioSlot> virtio = {};  // places that have a device
  bool with_clock = false;                  // function entries count, if they can (entry_clock.h)
};

struct LoadedLinux {
  BootState boot;
  KernelPatches patches;
};

// Loads and patches. `ram`: linux_ram().bytes from guest-physical 0 on, all zeros.
// Errors: kBadImage: not a kernel, or one that does not fit; kUsage: too little or too much memory, a command
// line that is too long.
Result<LoadedLinux> load_linux(const LinuxGuest& guest, std::span<uint8_t> ram);

}  // namespace reprise::vmm
