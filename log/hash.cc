#include "log/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace reprise::log {
namespace {

std::string hex_of(const XXH128_hash_t& hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

uint64_t xxh64(Bytes bytes, uint64_t seed) {
  return XXH64(bytes.data(), bytes.size(), seed);
}

uint64_t xxh3_64(Bytes bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string xxh3_128_hex(Bytes bytes) {
  return hex_of(XXH3_128bits(bytes.data(), bytes.size()));
}

struct StreamHash::State {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> xxh3{XXH3_createState(), &XXH3_freeState};
};

StreamHash::StreamHash() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(state_->xxh3.get());
}

StreamHash::~StreamHash() = default;

void StreamHash::add(Bytes bytes) {
  XXH3_64bits_update(state_->xxh3.get(), bytes.data(), bytes.size());
}

uint64_t StreamHash::digest() const {
  return XXH3_64bits_digest(state_->xxh3.get());
}

struct ImageHash::State {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> xxh3{XXH3_createState(), &XXH3_freeState};
};

ImageHash::ImageHash() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(state_->xxh3.get());
}

ImageHash::~ImageHash() = default;

void ImageHash::add(Bytes bytes) {
  XXH3_128bits_update(state_->xxh3.get(), bytes.data(), bytes.size());
}

std::string ImageHash::hex() const {
  return hex_of(XXH3_128bits_digest(state_->xxh3.get()));
}

}  // namespace reprise::log
