// Reads the blocks of one log file, in order, one at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "log/block_format.h"
#include "log/block_writer.h"
#include "log/event.h"

namespace reprise::log {

// Threads: confined to its owner. Memory: one block, bounded by the limits of log/format.h whatever the file
// says.
class BlockReader {
 public:
  // Errors: kNotFound; kDamaged if the file's header is there and wrong.
  static Result<std::unique_ptr<BlockReader>> open(const std::filesystem::path& folder, VcpuId vcpu);

  // Where the next block begins. Requires: `offset` and `number` from an index of this file.
  void seek(uint64_t offset, uint32_t number);

  // Replaces `events` by those of the next block; false at the end of the file, or where the file ends in the
  // middle of a block (then torn()). Errors: kDamaged, naming file, block number and byte offset.
  Result<bool> next(std::vector<Event>& events);

  // Whether next() found that the file ends in the middle of a block or of the file's header.
  [[nodiscard]] bool torn() const { return torn_; }
  [[nodiscard]] uint64_t offset() const { return offset_; }                 // of the next block, bytes
  [[nodiscard]] uint32_t next_number() const { return number_; }            // of the next block
  [[nodiscard]] const BlockHeader& last_header() const { return header_; }  // of the block last read
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  // `what`, with file, block and offset in front.
  [[nodiscard]] tl::unexpected<Error> damaged(const std::string& what) const;

 private:
  BlockReader(std::filesystem::path path, VcpuId vcpu, UniqueFd fd);
  Status unpack(const BlockHeader& header, std::vector<Event>& events);

  const std::filesystem::path path_;
  const VcpuId vcpu_;
  const UniqueFd fd_;
  const std::unique_ptr<ZSTD_DCtx, ZstdDeleter> zstd_;
  uint64_t offset_ = 0;
  uint32_t number_ = 0;
  bool torn_ = false;
  BlockHeader header_;
  std::vector<uint8_t> compressed_;
  std::vector<uint8_t> raw_;
};

}  // namespace reprise::log
