#include "log/event_codec.h"

#include <bit>
#include <type_traits>

#include "base/check.h"
#include "log/format.h"

namespace reprise::log {
namespace {

// Bytes of a protobuf varint. Source: Protocol Buffers encoding, "Base 128 Varints": 7 bits each.
size_t varint_bytes(uint64_t value) {
  return (static_cast<size_t>(std::bit_width(value | 1)) + 6) / 7;
}

uint64_t zigzag(int64_t value) {
  return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
}

char byte_of(auto value) {
  return static_cast<char>(static_cast<uint8_t>(value));
}

// Reads a column from front to back.
template <typename Column>
class Cursor {
 public:
  explicit Cursor(const Column& column) : column_(column) {}
  [[nodiscard]] size_t left() const { return static_cast<size_t>(column_.size()) - next_; }
  template <typename T>
  [[nodiscard]] bool take(T& value) {
    if (left() == 0) return false;
    if constexpr (std::is_same_v<Column, std::string>)
      value = static_cast<T>(static_cast<uint8_t>(column_[next_++]));
    else
      value = static_cast<T>(column_[static_cast<int>(next_++)]);
    return true;
  }

  // The next `size` bytes.
  [[nodiscard]] bool take(size_t size, std::string& bytes) {
    if (left() < size) return false;
    bytes = column_.substr(next_, size);
    next_ += size;
    return true;
  }

 private:
  const Column& column_;
  size_t next_ = 0;
};
template <typename Column>
Cursor(const Column&) -> Cursor<Column>;

// Walks the columns of one block. Each function says false where they do not fit together.
class Decoder {
 public:
  explicit Decoder(const pb::Block& block)
      : kinds_(block.kinds()),
        stops_(block.stops()),
        ticks_(block.ticks()),
        tickets_(block.tickets()),
        rights_(block.rights()),
        page_counts_(block.page_counts()),
        pages_(block.pages()),
        versions_(block.versions()),
        sources_(block.sources()),
        values_(block.values()),
        message_kinds_(block.message_kinds()),
        vectors_(block.vectors()),
        digests_(block.digests()),
        periods_(block.periods()),
        input_devices_(block.input_devices()),
        input_sizes_(block.input_sizes()),
        input_bytes_(block.input_bytes()),
        addresses_(block.addresses()) {}

  bool decode(Event& event) {
    uint8_t kind = 0;
    uint64_t stops = 0;
    uint64_t ticks = 0;
    if (!kinds_.take(kind) || !stops_.take(stops) || !ticks_.take(ticks)) return false;
    state_.position.stops += stops;
    state_.position.ticks.raw += ticks;
    event.position = state_.position;
    switch (kind) {
      case pb::EVENT_KIND_GAIN:
        return decode_what(event.what.emplace<Gain>());
      case pb::EVENT_KIND_LOSS:
        return decode_what(event.what.emplace<Loss>());
      case pb::EVENT_KIND_VALUE:
        return decode_what(event.what.emplace<Value>());
      case pb::EVENT_KIND_APIC_MESSAGE:
        return decode_message(event);
      case pb::EVENT_KIND_DIGEST:
        return digests_.take(event.what.emplace<Digest>().registers);
      case pb::EVENT_KIND_END:
        return digests_.take(event.what.emplace<End>().registers);
      case pb::EVENT_KIND_SPIN:
        return decode_what(event.what.emplace<Spin>());
      case pb::EVENT_KIND_MACHINE_DIGEST:
        return digests_.take(event.what.emplace<MachineDigest>().machine);
      case pb::EVENT_KIND_INPUT:
        return decode_what(event.what.emplace<Input>());
      case pb::EVENT_KIND_USER_BREAKPOINT:
        return decode_what(event.what.emplace<UserBreakpoint>());
      case pb::EVENT_KIND_PREEMPTION:
        return decode_what(event.what.emplace<Preemption>());
      default:
        return false;
    }
  }

  // Whether every column was used up.
  [[nodiscard]] bool done() const {
    return kinds_.left() + stops_.left() + ticks_.left() + tickets_.left() + rights_.left() +
               page_counts_.left() + pages_.left() + versions_.left() + sources_.left() + values_.left() +
               message_kinds_.left() + vectors_.left() + digests_.left() + periods_.left() +
               input_devices_.left() + input_sizes_.left() + input_bytes_.left() + addresses_.left() ==
           0;
  }

 private:
  bool take_ticket(Ticket& ticket) {
    uint64_t delta = 0;
    if (!tickets_.take(delta)) return false;
    ticket = Ticket(state_.ticket += delta);
    return true;
  }

  bool take_right(Right& right) {
    uint8_t raw = 0;
    if (!rights_.take(raw) || raw > static_cast<uint8_t>(Right::kWrite)) return false;
    right = static_cast<Right>(raw);
    return true;
  }

  bool take_page(PageStep& step) {
    uint64_t page = 0;
    uint32_t version = 0;
    if (!pages_.take(page) || !versions_.take(version)) return false;
    step.page = PageNumber(state_.page += page);
    step.version = state_.version_of_page[step.page.raw] += version;
    return true;
  }

  bool decode_what(Gain& gain) {
    uint32_t count = 0;
    if (!take_ticket(gain.ticket) || !take_right(gain.right) || !page_counts_.take(count)) return false;
    if (count > pages_.left() || count > kMaxPagesPerGain) return false;
    gain.pages.resize(count);
    for (PageStep& step : gain.pages)
      if (!take_page(step)) return false;
    return true;
  }

  bool decode_what(Loss& loss) {
    return take_ticket(loss.ticket) && take_right(loss.left) && take_page(loss.page);
  }

  bool decode_what(Value& value) {
    uint8_t source = 0;
    uint64_t delta = 0;
    if (!sources_.take(source) || !values_.take(delta)) return false;
    if (source < static_cast<uint8_t>(Source::kTime) || source > static_cast<uint8_t>(Source::kRandom))
      return false;
    value = {static_cast<Source>(source), state_.value_of_source[source] += delta};
    return true;
  }

  bool decode_message(Event& event) {
    uint8_t kind = 0;
    uint8_t vector = 0;
    if (!message_kinds_.take(kind) || !vectors_.take(vector)) return false;
    // In format version 1 inputs were messages: the interval timer's line, and a byte for the console.
    constexpr uint8_t kLine = 6, kConsoleByte = 7;
    if (kind == kLine && vector == 0) {
      event.what = Input{InputDevice::kIntervalTimer, {}};
    } else if (kind == kConsoleByte) {
      event.what = Input{InputDevice::kConsole, std::string(1, static_cast<char>(vector))};
    } else if (kind >= static_cast<uint8_t>(ApicMessageKind::kFixed) &&
               kind <= static_cast<uint8_t>(ApicMessageKind::kTimer)) {
      event.what = ApicMessage{static_cast<ApicMessageKind>(kind), vector};
    } else {
      return false;
    }
    return true;
  }

  bool decode_what(Input& input) {
    uint8_t device = 0;
    uint32_t size = 0;
    if (!input_devices_.take(device) || !input_sizes_.take(size)) return false;
    if (device < static_cast<uint8_t>(InputDevice::kIntervalTimer) ||
        device > static_cast<uint8_t>(InputDevice::kConsole) || size > kMaxInputBytes)
      return false;
    input.device = static_cast<InputDevice>(device);
    return input_bytes_.take(size, input.bytes);
  }

  bool decode_what(Spin& spin) { return digests_.take(spin.registers) && periods_.take(spin.period); }

  bool decode_what(UserBreakpoint& at) {
    return addresses_.take(at.address.raw) && digests_.take(at.registers) && digests_.take(at.rest);
  }

  bool decode_what(Preemption& at) { return addresses_.take(at.rip.raw) && digests_.take(at.registers); }

  using Varints64 = google::protobuf::RepeatedField<uint64_t>;
  using Varints32 = google::protobuf::RepeatedField<uint32_t>;
  using Signed64 = google::protobuf::RepeatedField<int64_t>;
  DeltaState state_;
  Cursor<std::string> kinds_;
  Cursor<Varints64> stops_, ticks_, tickets_;
  Cursor<std::string> rights_;
  Cursor<Varints32> page_counts_;
  Cursor<Signed64> pages_;
  Cursor<Varints32> versions_;
  Cursor<std::string> sources_;
  Cursor<Varints64> values_;
  Cursor<std::string> message_kinds_, vectors_;
  Cursor<Varints64> digests_;
  Cursor<Varints32> periods_;
  Cursor<std::string> input_devices_;
  Cursor<Varints32> input_sizes_;
  Cursor<std::string> input_bytes_;
  Cursor<Varints64> addresses_;
};

}  // namespace

void DeltaState::restart() {
  position = {};
  ticket = 0;
  page = 0;
  version_of_page.clear();
  value_of_source.fill(0);
}

size_t BlockEncoder::add(const Event& event) {
  static_assert(
      std::is_same_v<decltype(Event::what), std::variant<Gain, Loss, Value, ApicMessage, Digest, End, Spin,
                                                         MachineDigest, Input, UserBreakpoint, Preemption>>,
      "kinds are numbered by the order of the alternatives: EVENT_KIND_GAIN is the first");
  if (count_++ == 0) first_position_ = event.position;
  block_.mutable_kinds()->push_back(byte_of(event.what.index() + pb::EVENT_KIND_GAIN));
  const uint64_t stops = event.position.stops - state_.position.stops;
  const uint64_t ticks = event.position.ticks - state_.position.ticks;
  block_.add_stops(stops);
  block_.add_ticks(ticks);
  state_.position = event.position;
  const size_t size = 1 + varint_bytes(stops) + varint_bytes(ticks) +
                      std::visit([this](const auto& what) { return add_what(what); }, event.what);
  bytes_ += size;
  return size;
}

size_t BlockEncoder::add_ticket(Ticket ticket) {
  if (first_ticket_ == Ticket()) first_ticket_ = ticket;
  const uint64_t delta = ticket.raw - state_.ticket;
  state_.ticket = ticket.raw;
  block_.add_tickets(delta);
  return varint_bytes(delta);
}

size_t BlockEncoder::add_page(const PageStep& step) {
  const auto page = static_cast<int64_t>(step.page.raw - state_.page);
  state_.page = step.page.raw;
  uint32_t& known = state_.version_of_page[step.page.raw];
  const uint32_t version = step.version - known;
  known = step.version;
  block_.add_pages(page);
  block_.add_versions(version);
  return varint_bytes(zigzag(page)) + varint_bytes(version);
}

size_t BlockEncoder::add_what(const Gain& gain) {
  REPRISE_CHECK(gain.pages.size() <= kMaxPagesPerGain);
  const auto count = static_cast<uint32_t>(gain.pages.size());
  size_t size = add_ticket(gain.ticket) + 1 + varint_bytes(count);
  block_.mutable_rights()->push_back(byte_of(gain.right));
  block_.add_page_counts(count);
  for (const PageStep& step : gain.pages) size += add_page(step);
  return size;
}

size_t BlockEncoder::add_what(const Loss& loss) {
  block_.mutable_rights()->push_back(byte_of(loss.left));
  return 1 + add_ticket(loss.ticket) + add_page(loss.page);
}

size_t BlockEncoder::add_what(const Value& value) {
  const auto source = static_cast<uint8_t>(value.source);
  const uint64_t delta = value.value - state_.value_of_source[source];
  state_.value_of_source[source] = value.value;
  block_.mutable_sources()->push_back(byte_of(source));
  block_.add_values(delta);
  return 1 + varint_bytes(delta);
}

size_t BlockEncoder::add_what(const ApicMessage& message) {
  block_.mutable_message_kinds()->push_back(byte_of(message.kind));
  block_.mutable_vectors()->push_back(byte_of(message.vector));
  return 2;
}

size_t BlockEncoder::add_what(const Digest& digest) {
  block_.add_digests(digest.registers);
  return sizeof(digest.registers);
}

size_t BlockEncoder::add_what(const End& end) {
  block_.add_digests(end.registers);
  return sizeof(end.registers);
}

size_t BlockEncoder::add_what(const Spin& spin) {
  block_.add_digests(spin.registers);
  block_.add_periods(spin.period);
  return sizeof(spin.registers) + varint_bytes(spin.period);
}

size_t BlockEncoder::add_what(const MachineDigest& digest) {
  block_.add_digests(digest.machine);
  return sizeof(digest.machine);
}

size_t BlockEncoder::add_what(const Input& input) {
  REPRISE_CHECK(input.bytes.size() <= kMaxInputBytes);
  const auto size = static_cast<uint32_t>(input.bytes.size());
  block_.mutable_input_devices()->push_back(byte_of(input.device));
  block_.add_input_sizes(size);
  block_.mutable_input_bytes()->append(input.bytes);
  return 1 + varint_bytes(size) + size;
}

size_t BlockEncoder::add_what(const UserBreakpoint& at) {
  block_.add_addresses(at.address.raw);
  block_.add_digests(at.registers);
  block_.add_digests(at.rest);
  return sizeof at;
}

size_t BlockEncoder::add_what(const Preemption& at) {
  block_.add_addresses(at.rip.raw);
  block_.add_digests(at.registers);
  return sizeof at;
}

void BlockEncoder::take(std::string& raw) {
  raw.clear();
  block_.AppendToString(&raw);
  block_.Clear();
  state_.restart();
  count_ = 0;
  bytes_ = 0;
  first_position_ = {};
  first_ticket_ = {};
}

Status decode_block(Bytes raw, uint32_t count, std::vector<Event>& events) {
  events.clear();
  pb::Block block;
  if (raw.size() > kMaxRawBytes || !block.ParseFromArray(raw.data(), static_cast<int>(raw.size())))
    return fail(ErrorCode::kDamaged, "the payload is not a block of events");
  if (count > kMaxBlockEvents || block.kinds().size() != count)
    return fail(ErrorCode::kDamaged, "the payload holds {} events, the header says {}", block.kinds().size(),
                count);
  events.resize(count);
  Decoder decoder(block);
  for (uint32_t i = 0; i < count; ++i)
    if (!decoder.decode(events[i]))
      return fail(ErrorCode::kDamaged, "event {} of {} in the block cannot be decoded", i, count);
  if (!decoder.done()) return fail(ErrorCode::kDamaged, "the block holds more than its {} events", count);
  return {};
}

}  // namespace reprise::log
