// Writes the blocks of one log file.
#pragma once

#include <zstd.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "log/event_codec.h"
#include "log/schema.pb.h"

namespace reprise::log {

struct ZstdDeleter {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// After an error the file ends with the last whole block (the torn one is cut off if the file system lets us)
// and the writer must not be used again.
// Threads: confined to one thread at a time; bytes_written() may be called from any.
class BlockWriter {
 public:
  // Creates the log of `vcpu` in `folder`. Errors: kOutput.
  static Result<std::unique_ptr<BlockWriter>> create(const std::filesystem::path& folder, VcpuId vcpu);

  // Writes what `encoder` holds as the next block. Requires: at least one event.
  // Errors: kOutput.
  Status write(BlockEncoder& encoder);

  [[nodiscard]] const pb::LogIndex& index() const { return index_; }
  [[nodiscard]] uint64_t bytes_written() const { return offset_.load(std::memory_order_relaxed); }

 private:
  BlockWriter(std::filesystem::path path, VcpuId vcpu, UniqueFd fd);
  Status write_or_cut(Bytes bytes);

  const std::filesystem::path path_;
  const VcpuId vcpu_;
  const UniqueFd fd_;
  const std::unique_ptr<ZSTD_CCtx, ZstdDeleter> zstd_;
  std::atomic<uint64_t> offset_ = 0;  // end of the last whole block, bytes
  uint32_t blocks_ = 0;
  pb::LogIndex index_;
  std::string raw_;
  std::string block_;
};

}  // namespace reprise::log
