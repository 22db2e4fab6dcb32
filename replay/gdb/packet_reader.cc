#include "replay/gdb/packet_reader.h"

#include <array>
#include <utility>

#include "replay/gdb/packet_text.h"

namespace reprise::replay::gdb {

void PacketReader::feed(std::span<const uint8_t> bytes, std::vector<Item>& items) {
  for (const uint8_t byte : bytes) {
    switch (state_) {
      case State::kBetween:
        if (byte == '$') begin();
        if (byte == '-') items.push_back({Kind::kRefused, {}});
        if (byte == 0x03) items.push_back({Kind::kInterrupt, {}});
        break;
      case State::kText:
      case State::kEscaped:
        if (byte == '$') {
          begin();
        } else if (byte == '#') {
          state_ = State::kChecksumHigh;
        } else {
          add(byte);
        }
        break;
      case State::kChecksumHigh:
        first_digit_ = byte;
        state_ = State::kChecksumLow;
        break;
      case State::kChecksumLow:
        items.push_back(finish(byte));
        state_ = State::kBetween;
        break;
    }
  }
}

void PacketReader::begin() {
  state_ = State::kText;
  text_.clear();
  too_long_ = false;
  sum_ = 0;
}

void PacketReader::add(uint8_t byte) {
  sum_ = static_cast<uint8_t>(sum_ + byte);
  if (state_ == State::kText && byte == '}') {
    state_ = State::kEscaped;
    return;
  }
  if (text_.size() == kMaxPacketBytes) {
    too_long_ = true;
  } else {
    text_ += static_cast<char>(state_ == State::kEscaped ? byte ^ 0x20 : byte);
  }
  state_ = State::kText;
}

PacketReader::Item PacketReader::finish(uint8_t last_digit) {
  const std::array<char, 2> digits = {static_cast<char>(first_digit_), static_cast<char>(last_digit)};
  const auto checksum = from_hex({digits.data(), digits.size()});
  std::string text = std::exchange(text_, {});
  if (!checksum || (*checksum)[0] != sum_) return {Kind::kBadChecksum, {}};
  if (too_long_) return {Kind::kTooLong, {}};
  return {Kind::kPacket, std::move(text)};
}

}  // namespace reprise::replay::gdb
