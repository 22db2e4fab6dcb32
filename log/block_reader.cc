#include "log/block_reader.h"

#include "base/check.h"
#include "log/event_codec.h"
#include "log/file_io.h"
#include "log/format.h"

namespace reprise::log {

BlockReader::BlockReader(std::filesystem::path path, VcpuId vcpu, UniqueFd fd)
    : path_(std::move(path)), vcpu_(vcpu), fd_(std::move(fd)), zstd_(ZSTD_createDCtx()) {
  REPRISE_CHECK(zstd_ != nullptr);
}

Result<std::unique_ptr<BlockReader>> BlockReader::open(const std::filesystem::path& folder, VcpuId vcpu) {
  std::filesystem::path path = folder / log_file_name(vcpu);
  TRY_ASSIGN(UniqueFd fd, open_file(path));
  std::unique_ptr<BlockReader> reader(new BlockReader(std::move(path), vcpu, std::move(fd)));
  std::array<uint8_t, kLogHeaderBytes> header = {};
  TRY_ASSIGN(const size_t got, read_at(reader->fd_.get(), 0, header, reader->path_));
  if (got < header.size()) {
    // A recorder that was killed at its very start: a log without events.
    reader->torn_ = true;
    return reader;
  }
  TRY(check_log_header(header, vcpu, reader->path_));
  reader->offset_ = kLogHeaderBytes;
  return reader;
}

void BlockReader::seek(uint64_t offset, uint32_t number) {
  offset_ = offset;
  number_ = number;
  torn_ = offset < kLogHeaderBytes;  // a log without a header has no blocks
}

tl::unexpected<Error> BlockReader::damaged(const std::string& what) const {
  return fail(ErrorCode::kDamaged, "{}: block {} at byte {}: {}", path_.string(), number_, offset_, what);
}

Result<bool> BlockReader::next(std::vector<Event>& events) {
  events.clear();
  if (torn_) return false;
  std::array<uint8_t, kBlockHeaderBytes> bytes = {};
  TRY_ASSIGN(size_t got, read_at(fd_.get(), offset_, bytes, path_));
  if (got == 0) return false;
  if (got < bytes.size()) {
    torn_ = true;
    return false;
  }
  Result<BlockHeader> header = decode_block_header(bytes, vcpu_, number_);
  if (!header) return damaged(header.error().message);
  compressed_.resize(header->compressed_bytes);
  TRY_ASSIGN(got, read_at(fd_.get(), offset_ + kBlockHeaderBytes, compressed_, path_));
  if (got < compressed_.size()) {
    torn_ = true;
    return false;
  }
  TRY(unpack(*header, events));
  header_ = *header;
  offset_ += kBlockHeaderBytes + compressed_.size();
  ++number_;
  return true;
}

Status BlockReader::unpack(const BlockHeader& header, std::vector<Event>& events) {
  if (payload_sum(compressed_, vcpu_) != header.payload_sum)
    return damaged("the payload has a wrong checksum");
  raw_.resize(header.raw_bytes);
  const size_t size =
      ZSTD_decompressDCtx(zstd_.get(), raw_.data(), raw_.size(), compressed_.data(), compressed_.size());
  if (ZSTD_isError(size)) return damaged(fmt::format("cannot be unpacked: {}", ZSTD_getErrorName(size)));
  if (size != raw_.size())
    return damaged(fmt::format("unpacks to {} bytes, its header says {}", size, header.raw_bytes));
  if (Status decoded = decode_block(raw_, header.events, events); !decoded)
    return damaged(decoded.error().message);
  return {};
}

}  // namespace reprise::log
