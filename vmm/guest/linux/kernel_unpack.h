// From a kernel file as distributions ship it to the ELF file inside.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace reprise::vmm {

// Takes the vmlinux out of a bzImage (gzip, bzip2, xz, lzma, lz4 or zstd); an ELF file is given back as it
// is. Errors: kBadImage: neither, truncated, an unknown compression, damaged. Source: Linux
// Documentation/arch/x86/boot.rst, payload_offset and payload_length.
Result<std::vector<uint8_t>> unpack_kernel(std::span<const uint8_t> file);

}  // namespace reprise::vmm
