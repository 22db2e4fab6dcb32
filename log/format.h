// The numbers of the recording format. docs/log-format.md is the page to read; this is what the code uses.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/units.h"

namespace reprise::log {

// Raised when an older reader would misread what a newer writer writes. 2: Input events. 3: several
// disks, which may be read-only, and what they offer.
inline constexpr uint32_t kFormatVersion = 3;

// The first 8 bytes of each file. "\x89" and "\n" catch transfers that are not 8-bit clean (PNG's trick).
using Magic = std::array<char, 8>;
inline constexpr Magic kManifestMagic = {'\x89', 'R', 'P', 'R', 'M', 'A', 'N', '\n'};
inline constexpr Magic kFinalMagic = {'\x89', 'R', 'P', 'R', 'F', 'I', 'N', '\n'};
inline constexpr Magic kIndexMagic = {'\x89', 'R', 'P', 'R', 'I', 'D', 'X', '\n'};
inline constexpr Magic kCheckpointMagic = {'\x89', 'R', 'P', 'R', 'C', 'P', 'T', '\n'};
inline constexpr Magic kPackMagic = {'\x89', 'R', 'P', 'R', 'P', 'C', 'K', '\n'};
inline constexpr Magic kLogMagic = {'\x89', 'R', 'P', 'R', 'L', 'O', 'G', '\n'};

inline constexpr std::string_view kManifestFile = "manifest";
inline constexpr std::string_view kImageFile = "image.elf";
inline constexpr std::string_view kInitrdFile = "initrd";
inline constexpr std::string_view kConsoleFile = "console";
inline constexpr std::string_view kFinalFile = "final";
inline constexpr std::string_view kIndexFile = "index";
inline constexpr std::string_view kCheckpointPrefix = "checkpoint-";
inline std::string log_file_name(VcpuId vcpu) {
  return "vcpu-" + std::to_string(vcpu.raw) + ".log";
}

// Writer: a block is closed when its raw payload reaches this: about 7,000 transitions. With 256 KiB files
// were 6 % smaller, with 16 KiB 2 % larger (log_bench); a debugger that seeks decodes half a block on
// average.
inline constexpr size_t kBlockBytes = size_t{64} * 1024;
// Reader: bytes of raw payload that one block may claim. Bounds what a hostile file can make us allocate.
inline constexpr uint32_t kMaxRawBytes = 4 * 1024 * 1024;
// Bytes of compressed payload: ZSTD_compressBound(kMaxRawBytes) is 4,210,688; rounded up.
inline constexpr uint32_t kMaxCompressedBytes = kMaxRawBytes + kMaxRawBytes / 64;
// Events in one block; the smallest event is 4 raw bytes, so this is reached before 4 bytes * 65,536.
inline constexpr uint32_t kMaxBlockEvents = 65536;
// Pages in one Gain: 256 MiB of guest memory in one step, and at most 20 raw bytes each.
inline constexpr size_t kMaxPagesPerGain = 65536;
// Bytes of one Input: the largest frame of a network card with its header is near 64 KiB.
inline constexpr size_t kMaxInputBytes = 65536 + 4096;
// Largest index or checkpoint; an index entry is about 30 bytes for 64 KiB of events.
inline constexpr uint32_t kMaxSealedBytes = 64 * 1024 * 1024;
// Largest manifest or final. Real ones have some KiB; a hostile one may take thirty times its size in memory.
inline constexpr uint32_t kMaxMessageBytes = 1024 * 1024;
// Largest state of a checkpoint, unpacked. Its file is sealed, so it must also pack into kMaxSealedBytes.
inline constexpr uint64_t kMaxCheckpointBytes = 1ull << 30;
// Largest image or initial RAM disk, bytes. A Linux kernel with all its debug information has 700 MB.
inline constexpr uint64_t kMaxImageBytes = 1ull << 30;
// Page numbers above those of RAM that a log may name: the hole below 4 GiB, and tokens, of which machines
// have a few.
inline constexpr uint64_t kMaxOtherPages = (1ull << 30 >> kPageShift) + 1024;

}  // namespace reprise::log
