// The fixed headers of a log file: one for the file, one for each block. docs/log-format.md has the tables.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>

#include "base/result.h"
#include "base/units.h"
#include "log/hash.h"

namespace reprise::log {

// magic 8 | format version 4 | vCPU 4 | sum 8
inline constexpr size_t kLogHeaderBytes = 24;
// compressed length 4 | raw length 4 | events 4 | block number 4 | payload sum 8 | header sum 8
inline constexpr size_t kBlockHeaderBytes = 32;

std::array<uint8_t, kLogHeaderBytes> encode_log_header(VcpuId vcpu);

// Errors: kDamaged, naming `path`; also for a newer format, and for another vCPU's log.
Status check_log_header(const std::array<uint8_t, kLogHeaderBytes>& bytes, VcpuId vcpu,
                        const std::filesystem::path& path);

// The header has a sum of its own, so that a wrong length is damage and never looks like a block that the
// end of the file cut off. Both sums are seeded with the vCPU's number: a block moved to another log is
// damage.
struct BlockHeader {
  uint32_t compressed_bytes = 0;
  uint32_t raw_bytes = 0;
  uint32_t events = 0;
  uint32_t number = 0;  // from 0, so that a block that is lost or doubled is noticed
  uint64_t payload_sum = 0;
};

uint64_t payload_sum(Bytes payload, VcpuId vcpu);

std::array<uint8_t, kBlockHeaderBytes> encode_block_header(const BlockHeader& header, VcpuId vcpu);

// Errors: kDamaged with what is wrong, without a place: wrong sum, lengths over the limits, not block
// `number`.
Result<BlockHeader> decode_block_header(const std::array<uint8_t, kBlockHeaderBytes>& bytes, VcpuId vcpu,
                                        uint32_t number);

}  // namespace reprise::log
