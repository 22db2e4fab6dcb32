// The one description of a machine: the message in a recording's manifest. The command line is converted to
// it (cli/machine_options.h), and a machine is made from it, here, whether it is recorded or replayed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "log/recording_reader.h"
#include "log/schema.pb.h"
#include "vmm/machine.h"

namespace reprise::vmm {

// Words of a manifest.
inline constexpr std::string_view kBootLinux = "linux";
// The virtio devices that are not the disk.
inline constexpr std::string_view kVirtioRandomName = "rng";
inline constexpr std::string_view kVirtioConsoleName = "console";

// Of the kind of guest that `linux_guest` says: one vCPU, the processor that such guests see, the least
// surprising settings. The start time is now.
log::pb::Manifest new_description(bool linux_guest);

[[nodiscard]] bool is_linux(const log::pb::Manifest& description);
// Whether it can only be recorded one vCPU at a time.
[[nodiscard]] bool needs_serial(const log::pb::Manifest& description);
[[nodiscard]] bool is_serial(const log::pb::Manifest& description);

// Whether such a machine can be: each value is possible, and they go together. Errors: kUsage, one sentence.
// Cost: looks at no file.
Status check_description(const log::pb::Manifest& description);

// The bytes that a machine starts with, but for those of its disks, which its description names.
struct GuestFiles {
  std::vector<uint8_t> image;   // an ELF file with a PVH note, or a Linux kernel
  std::vector<uint8_t> initrd;  // of a Linux kernel; may be empty
};

// What Machine::create() needs. Errors: as check_description().
Result<MachineOptions> to_machine_options(const log::pb::Manifest& description, GuestFiles files);

// What a recording says of its machine: check_description(), and what is named as its disk, if it is there,
// is a file. Every reader of a recording that makes a machine asks this first. Errors: kDamaged.
Status check_recorded(const log::Recording& recording);

// As check_recorded(), and the image can be loaded into that machine, as making the machine would find out.
// Errors: kDamaged. Cost: that of loading the guest.
Status check_loads(const log::Recording& recording);

}  // namespace reprise::vmm
