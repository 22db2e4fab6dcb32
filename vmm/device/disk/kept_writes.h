// What a guest wrote to its disk, kept after the run as an image of its own.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "vmm/device/disk/disk_image.h"

namespace reprise::vmm {

// Makes `file`, a qcow2 image with the disk's image as its backing file. Errors: kUsage if it exists;
// kOutput; kHost if qemu-img or qemu-nbd is missing. Cost: reads and writes all that the guest wrote.
Status keep_writes(const DiskImage& disk, const std::filesystem::path& file);

}  // namespace reprise::vmm
