#include "log/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace reprise::log {

uint64_t xxh64(Bytes bytes, uint64_t seed) {
  return XXH64(bytes.data(), bytes.size(), seed);
}

uint64_t xxh3_64(Bytes bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string xxh3_128_hex(Bytes bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace reprise::log
