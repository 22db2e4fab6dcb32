// Reading recordings from arbitrary bytes: each must be decoded or refused, within the limits of
// log/format.h.
//
// The first byte chooses what the rest is: a block's payload behind its checksums (where the fuzzer could not
// get by itself), a whole log file, or a block header with a payload, given valid checksums.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/check.h"
#include "log/block_reader.h"
#include "log/event_codec.h"
#include "log/event_text.h"
#include "log/format.h"
#include "log/page_history.h"
#include "log/sample_recording.h"

namespace {

using namespace reprise;
using namespace reprise::log;

constexpr VcpuId kVcpu(0);

// What was decoded must be usable everywhere, and come back the same from another round.
void use(const std::vector<Event>& events) {
  BlockEncoder encoder;
  PageHistory history;
  for (const Event& event : events) {
    REPRISE_CHECK(!to_text(event).empty());
    REPRISE_CHECK(!to_json(event).dump().empty());
    if (const auto* gain = std::get_if<Gain>(&event.what))
      (void)history.apply(kVcpu, *gain, PageHistory::Known::kAll);
    if (const auto* loss = std::get_if<Loss>(&event.what))
      (void)history.apply(kVcpu, *loss, PageHistory::Known::kAll);
    encoder.add(event);
  }
  std::string raw;
  encoder.take(raw);
  std::vector<Event> again;
  REPRISE_CHECK(decode_block(bytes_of(raw), static_cast<uint32_t>(events.size()), again));
  REPRISE_CHECK(again == events);
}

void fuzz_payload(Bytes bytes) {
  if (bytes.empty()) return;
  std::vector<Event> events;
  if (decode_block(bytes.subspan(1), bytes[0], events)) use(events);
}

void fuzz_file(std::vector<uint8_t> bytes) {
  static const TemporaryFolder folder;
  write_bytes(folder / log_file_name(kVcpu), bytes);
  auto reader = BlockReader::open(folder / "", kVcpu);
  if (!reader) return;
  std::vector<Event> events;
  for (;;) {
    const Result<bool> more = (*reader)->next(events);
    REPRISE_CHECK(more || more.error().code == ErrorCode::kDamaged);
    if (!more || !*more) return;
    use(events);
  }
}

// 12 bytes of lengths and count, then the payload.
void fuzz_sealed_block(Bytes bytes) {
  if (bytes.size() < 12) return;
  const auto field = [bytes](size_t at) {
    return static_cast<uint32_t>(bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 |
                                 static_cast<uint32_t>(bytes[at + 3]) << 24);
  };
  const Bytes payload = bytes.subspan(12);
  const auto log_header = encode_log_header(kVcpu);
  const auto header =
      encode_block_header({field(0), field(4), field(8), 0, payload_sum(payload, kVcpu)}, kVcpu);
  std::vector<uint8_t> file(log_header.begin(), log_header.end());
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), payload.begin(), payload.end());
  fuzz_file(std::move(file));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes rest(data + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      fuzz_payload(rest);
      break;
    case 1:
      fuzz_file({rest.begin(), rest.end()});
      break;
    default:
      fuzz_sealed_block(rest);
      break;
  }
  return 0;
}
