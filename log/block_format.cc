#include "log/block_format.h"

#include <cstring>

#include "log/format.h"
#include "log/little_endian.h"
#include "log/sealed_file.h"

namespace reprise::log {

std::array<uint8_t, kLogHeaderBytes> encode_log_header(VcpuId vcpu) {
  std::array<uint8_t, kLogHeaderBytes> bytes = {};
  std::memcpy(bytes.data(), kLogMagic.data(), kLogMagic.size());
  store_le<uint32_t>(&bytes[8], kFormatVersion);
  store_le<uint32_t>(&bytes[12], vcpu.raw);
  store_le<uint64_t>(&bytes[16], xxh64(Bytes(bytes).first(16)));
  return bytes;
}

Status check_log_header(const std::array<uint8_t, kLogHeaderBytes>& bytes, VcpuId vcpu,
                        const std::filesystem::path& path) {
  if (std::memcmp(bytes.data(), kLogMagic.data(), kLogMagic.size()) != 0)
    return fail(ErrorCode::kDamaged, "{} does not begin like a log", path.string());
  const auto version = load_le<uint32_t>(&bytes[8]);
  if (version > kFormatVersion) return newer_format(path, version);
  if (load_le<uint64_t>(&bytes[16]) != xxh64(Bytes(bytes).first(16)))
    return fail(ErrorCode::kDamaged, "{}: the file's header has a wrong checksum", path.string());
  if (version == 0) return fail(ErrorCode::kDamaged, "{} has format version 0", path.string());
  if (const auto found = load_le<uint32_t>(&bytes[12]); found != vcpu.raw)
    return fail(ErrorCode::kDamaged, "{} is the log of vCPU {}, not of vCPU {}", path.string(), found,
                vcpu.raw);
  return {};
}

uint64_t payload_sum(Bytes payload, VcpuId vcpu) {
  return xxh64(payload, vcpu.raw);
}

std::array<uint8_t, kBlockHeaderBytes> encode_block_header(const BlockHeader& header, VcpuId vcpu) {
  std::array<uint8_t, kBlockHeaderBytes> bytes = {};
  store_le<uint32_t>(&bytes[0], header.compressed_bytes);
  store_le<uint32_t>(&bytes[4], header.raw_bytes);
  store_le<uint32_t>(&bytes[8], header.events);
  store_le<uint32_t>(&bytes[12], header.number);
  store_le<uint64_t>(&bytes[16], header.payload_sum);
  store_le<uint64_t>(&bytes[24], xxh64(Bytes(bytes).first(24), vcpu.raw));
  return bytes;
}

Result<BlockHeader> decode_block_header(const std::array<uint8_t, kBlockHeaderBytes>& bytes, VcpuId vcpu,
                                        uint32_t number) {
  if (load_le<uint64_t>(&bytes[24]) != xxh64(Bytes(bytes).first(24), vcpu.raw))
    return fail(ErrorCode::kDamaged, "the block's header has a wrong checksum");
  const BlockHeader header = {
      .compressed_bytes = load_le<uint32_t>(&bytes[0]),
      .raw_bytes = load_le<uint32_t>(&bytes[4]),
      .events = load_le<uint32_t>(&bytes[8]),
      .number = load_le<uint32_t>(&bytes[12]),
      .payload_sum = load_le<uint64_t>(&bytes[16]),
  };
  if (header.compressed_bytes > kMaxCompressedBytes || header.raw_bytes > kMaxRawBytes)
    return fail(ErrorCode::kDamaged, "the block claims {} bytes, {} unpacked; at most {} and {} are possible",
                header.compressed_bytes, header.raw_bytes, kMaxCompressedBytes, kMaxRawBytes);
  if (header.events == 0 || header.events > kMaxBlockEvents)
    return fail(ErrorCode::kDamaged, "the block claims {} events; 1 to {} are possible", header.events,
                kMaxBlockEvents);
  if (header.number != number)
    return fail(ErrorCode::kDamaged, "the block has number {}, expected {}", header.number, number);
  return header;
}

}  // namespace reprise::log
