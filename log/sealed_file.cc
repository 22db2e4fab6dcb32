#include "log/sealed_file.h"

#include <cstring>
#include <string>

#include "log/file_io.h"
#include "log/little_endian.h"

namespace reprise::log {
namespace {

// Offsets of the fields (docs/log-format.md, "Sealed files").
constexpr size_t kVersionAt = 8;
constexpr size_t kLengthAt = 12;
constexpr size_t kSumAt = 16;
constexpr size_t kHeaderBytes = 24;

// Over the fields before the sum, then over the payload with that as its seed.
uint64_t sum_of(Bytes header, Bytes payload) {
  return xxh64(payload, xxh64(header.first(kSumAt)));
}

}  // namespace

Status write_sealed_file(const std::filesystem::path& path, const Magic& magic, std::string_view payload) {
  std::string file(kHeaderBytes, '\0');
  auto* header = reinterpret_cast<uint8_t*>(file.data());
  std::memcpy(header, magic.data(), magic.size());
  store_le<uint32_t>(header + kVersionAt, kFormatVersion);
  store_le<uint32_t>(header + kLengthAt, static_cast<uint32_t>(payload.size()));
  store_le<uint64_t>(header + kSumAt, sum_of({header, kHeaderBytes}, bytes_of(payload)));
  file.append(payload);
  return write_file_atomically(path, bytes_of(file));
}

tl::unexpected<Error> newer_format(const std::filesystem::path& path, uint32_t found) {
  return fail(ErrorCode::kDamaged, "{} was written by a newer Reprise: format {}, this one reads up to {}",
              path.string(), found, kFormatVersion);
}

Result<std::vector<uint8_t>> read_sealed_file(const std::filesystem::path& path, const Magic& magic,
                                              uint64_t limit) {
  TRY_ASSIGN(std::vector<uint8_t> file, read_file(path, kHeaderBytes + limit));
  if (file.size() < kHeaderBytes)
    return fail(ErrorCode::kDamaged, "{} is too short: {} bytes, its header alone has {}", path.string(),
                file.size(), kHeaderBytes);
  if (std::memcmp(file.data(), magic.data(), magic.size()) != 0)
    return fail(ErrorCode::kDamaged, "{} does not begin like a file of a recording", path.string());
  const auto version = load_le<uint32_t>(file.data() + kVersionAt);
  if (version > kFormatVersion) return newer_format(path, version);
  if (version == 0) return fail(ErrorCode::kDamaged, "{} has format version 0", path.string());
  const Bytes payload = Bytes(file).subspan(kHeaderBytes);
  if (load_le<uint32_t>(file.data() + kLengthAt) != payload.size())
    return fail(ErrorCode::kDamaged, "{} has {} bytes of payload, its header says {}", path.string(),
                payload.size(), load_le<uint32_t>(file.data() + kLengthAt));
  if (load_le<uint64_t>(file.data() + kSumAt) != sum_of(file, payload))
    return fail(ErrorCode::kDamaged, "{} has a wrong checksum", path.string());
  file.erase(file.begin(), file.begin() + kHeaderBytes);
  return file;
}

}  // namespace reprise::log
