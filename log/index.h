// Where the blocks of each log are, so that a timeline can start reading in the middle.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "log/schema.pb.h"

namespace reprise::log {

// Reads the index file; if there is none (a prefix), builds the same from the logs.
// Errors: kDamaged. Cost: reads every block if there is no file.
Result<pb::Index> read_index(const std::filesystem::path& folder, uint32_t vcpus);

// Builds the index from the logs alone. Errors: kDamaged.
Result<pb::Index> build_index(const std::filesystem::path& folder, uint32_t vcpus);

}  // namespace reprise::log
