#include "log/block_writer.h"

#include <unistd.h>

#include <cstring>

#include "base/check.h"
#include "log/block_format.h"
#include "log/file_io.h"
#include "log/format.h"

namespace reprise::log {
namespace {

// zstd's fastest normal level. Level 3 made blocks of transitions 3 % smaller, all others no smaller, for 30
// % more CPU time of the whole writer thread (log_bench, Xeon at 2.5 GHz).
constexpr int kCompressionLevel = 1;

}  // namespace

BlockWriter::BlockWriter(std::filesystem::path path, VcpuId vcpu, UniqueFd fd)
    : path_(std::move(path)), vcpu_(vcpu), fd_(std::move(fd)), zstd_(ZSTD_createCCtx()) {
  REPRISE_CHECK(zstd_ != nullptr);
}

Result<std::unique_ptr<BlockWriter>> BlockWriter::create(const std::filesystem::path& folder, VcpuId vcpu) {
  std::filesystem::path path = folder / log_file_name(vcpu);
  TRY_ASSIGN(UniqueFd fd, create_file(path));
  std::unique_ptr<BlockWriter> writer(new BlockWriter(std::move(path), vcpu, std::move(fd)));
  TRY(writer->write_or_cut(encode_log_header(vcpu)));
  return writer;
}

Status BlockWriter::write(BlockEncoder& encoder) {
  REPRISE_CHECK(encoder.count() > 0);
  pb::BlockIndex entry;
  entry.set_offset(bytes_written());
  entry.set_events(encoder.count());
  entry.set_first_stops(encoder.first_position().stops);
  entry.set_first_ticks(encoder.first_position().ticks.raw);
  entry.set_first_ticket(encoder.first_ticket().raw);

  encoder.take(raw_);
  REPRISE_CHECK(raw_.size() <= kMaxRawBytes);
  block_.resize(kBlockHeaderBytes + ZSTD_compressBound(raw_.size()));
  const size_t compressed =
      ZSTD_compressCCtx(zstd_.get(), block_.data() + kBlockHeaderBytes, block_.size() - kBlockHeaderBytes,
                        raw_.data(), raw_.size(), kCompressionLevel);
  REPRISE_CHECK(!ZSTD_isError(compressed));
  block_.resize(kBlockHeaderBytes + compressed);
  const BlockHeader header = {
      .compressed_bytes = static_cast<uint32_t>(compressed),
      .raw_bytes = static_cast<uint32_t>(raw_.size()),
      .events = entry.events(),
      .number = blocks_,
      .payload_sum = payload_sum(bytes_of(block_).subspan(kBlockHeaderBytes), vcpu_),
  };
  const auto header_bytes = encode_block_header(header, vcpu_);
  std::memcpy(block_.data(), header_bytes.data(), header_bytes.size());
  TRY(write_or_cut(bytes_of(block_)));
  ++blocks_;
  *index_.add_blocks() = std::move(entry);
  return {};
}

Status BlockWriter::write_or_cut(Bytes bytes) {
  if (Status written = write_all(fd_.get(), bytes, path_); !written) {
    // Best effort: a reader takes a torn last block for the end of a prefix anyway.
    [[maybe_unused]] const int cut = ::ftruncate(fd_.get(), static_cast<off_t>(bytes_written()));
    return written;
  }
  offset_.store(bytes_written() + bytes.size(), std::memory_order_relaxed);
  return {};
}

}  // namespace reprise::log
