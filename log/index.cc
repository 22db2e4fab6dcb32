#include "log/index.h"

#include "log/block_reader.h"
#include "log/format.h"
#include "log/sealed_file.h"
#include "log/ticket_of.h"

namespace reprise::log {
Result<pb::Index> build_index(const std::filesystem::path& folder, uint32_t vcpus) {
  pb::Index index;
  std::vector<Event> events;
  for (uint32_t i = 0; i < vcpus; ++i) {
    pb::LogIndex& log = *index.add_logs();
    TRY_ASSIGN(const auto reader, BlockReader::open(folder, VcpuId(i)));
    for (;;) {
      const uint64_t offset = reader->offset();
      TRY_ASSIGN(const bool more, reader->next(events));
      if (!more) break;
      pb::BlockIndex& block = *log.add_blocks();
      block.set_offset(offset);
      block.set_events(static_cast<uint32_t>(events.size()));
      block.set_first_stops(events.front().position.stops);
      block.set_first_ticks(events.front().position.ticks.raw);
      for (size_t at = 0; at < events.size() && block.first_ticket() == 0; ++at)
        block.set_first_ticket(ticket_of(events[at]).value_or(Ticket()).raw);
    }
  }
  return index;
}

Result<pb::Index> read_index(const std::filesystem::path& folder, uint32_t vcpus) {
  const std::filesystem::path path = folder / kIndexFile;
  Result<std::vector<uint8_t>> payload = read_sealed_file(path, kIndexMagic);
  if (!payload && payload.error().code == ErrorCode::kNotFound) return build_index(folder, vcpus);
  if (!payload) return tl::unexpected(std::move(payload).error());
  pb::Index index;
  if (!index.ParseFromArray(payload->data(), static_cast<int>(payload->size())))
    return fail(ErrorCode::kDamaged, "{} is not an index", path.string());
  if (static_cast<uint32_t>(index.logs_size()) != vcpus)
    return fail(ErrorCode::kDamaged, "{} has {} logs, the recording {}", path.string(), index.logs_size(),
                vcpus);
  return index;
}

}  // namespace reprise::log
