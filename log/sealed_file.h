// A small file that is written once: magic, format version, length, checksum, payload.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "log/format.h"
#include "log/hash.h"

namespace reprise::log {

// Writes `payload` sealed, atomically. Errors: kOutput.
Status write_sealed_file(const std::filesystem::path& path, const Magic& magic, std::string_view payload);

// The payload of a sealed file, of at most `limit` bytes. The version is read and judged before anything else
// is believed. Errors: kNotFound; kDamaged, also for a format newer than kFormatVersion.
Result<std::vector<uint8_t>> read_sealed_file(const std::filesystem::path& path, const Magic& magic,
                                              uint64_t limit = kMaxSealedBytes);

// The sentence for a file whose format is newer than this program.
tl::unexpected<Error> newer_format(const std::filesystem::path& path, uint32_t found);

}  // namespace reprise::log
