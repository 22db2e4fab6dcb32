// The hashes of a recording. All of them find accidents and careless edits, none of them an adversary.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace reprise::log {

using Bytes = std::span<const uint8_t>;
inline Bytes bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

uint64_t xxh64(Bytes bytes, uint64_t seed = 0);  // block and envelope sums
uint64_t xxh3_64(Bytes bytes);                   // console
std::string xxh3_128_hex(Bytes bytes);           // images; 32 digits, the high half first

// xxh3_64() of bytes that come in pieces. Threads: confined to one.
class StreamHash {
 public:
  StreamHash();
  ~StreamHash();
  StreamHash(const StreamHash&) = delete;
  StreamHash& operator=(const StreamHash&) = delete;
  void add(Bytes bytes);
  [[nodiscard]] uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same hash of an image that comes in pieces. Threads: confined to one.
class ImageHash {
 public:
  ImageHash();
  ~ImageHash();
  ImageHash(const ImageHash&) = delete;
  ImageHash& operator=(const ImageHash&) = delete;
  void add(Bytes bytes);
  [[nodiscard]] std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace reprise::log
