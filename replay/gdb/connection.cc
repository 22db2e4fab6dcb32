#include "replay/gdb/connection.h"

#include <array>
#include <vector>

#include "replay/gdb/packet_text.h"

namespace reprise::replay::gdb {
namespace {

using Kind = PacketReader::Kind;

// Bytes and packets that are read ahead while the machine runs, in search of a Ctrl-C. GDB sends nothing else
// then.
constexpr size_t kMaxWaitingBytes = 2 * kMaxPacketBytes;
constexpr size_t kMaxWaitingItems = 1024;
constexpr size_t kReadBytes = 4096;

}  // namespace

// False: closed, and nothing more is waiting than before.
Result<bool> Connection::read(bool wait) {
  std::array<uint8_t, kReadBytes> bytes;
  TRY_ASSIGN(const std::optional<size_t> count, stream_.read(bytes, wait));
  if (!count) {
    closed_ = true;
    return false;
  }
  std::vector<PacketReader::Item> items;
  reader_.feed(std::span(bytes).first(*count), items);
  for (PacketReader::Item& item : items) {
    waiting_bytes_ += item.text.size();
    waiting_.push_back(std::move(item));
  }
  return true;
}

Result<std::optional<std::string>> Connection::receive() {
  while (true) {
    if (waiting_.empty()) {
      if (closed_) return std::nullopt;
      TRY(read(true));
      continue;
    }
    PacketReader::Item item = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= item.text.size();
    switch (item.kind) {
      case Kind::kPacket:
        repeats_ = 0;
        if (acknowledge_) TRY(write("+"));
        return std::move(item.text);
      case Kind::kBadChecksum:
      case Kind::kTooLong:
        TRY(answer_damaged(item.kind));
        break;
      case Kind::kRefused:
        TRY(repeat());
        break;
      case Kind::kInterrupt:
        break;
    }
  }
}

Status Connection::answer_damaged(Kind kind) {
  if (kind == Kind::kBadChecksum) {
    if (acknowledge_) return write("-");
    return send(error_text("a packet with a wrong checksum, which was not carried out"));
  }
  if (acknowledge_) TRY(write("+"));
  return send(
      error_text(fmt::format("a packet of more than {} bytes, which was not carried out", kMaxPacketBytes)));
}

Status Connection::repeat() {
  if (!acknowledge_ || last_.empty()) return {};
  if (++repeats_ > kMaxRepeats)
    return fail(ErrorCode::kHost, "the debugger refused the same answer {} times", repeats_);
  return write(last_);
}

Status Connection::send(std::string_view text) {
  uint8_t sum = 0;
  for (const char c : text) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  last_ = fmt::format("${}#{:02x}", text, sum);
  return write(last_);
}

Status Connection::write(std::string_view bytes) {
  return stream_.write({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

bool Connection::interrupted() {
  if (!closed_ && waiting_bytes_ < kMaxWaitingBytes && waiting_.size() < kMaxWaitingItems) {
    // An error will come again, and be reported, when the next packet is sent or received.
    if (!read(false)) closed_ = true;
  }
  for (auto item = waiting_.begin(); item != waiting_.end(); ++item) {
    if (item->kind != Kind::kInterrupt) continue;
    waiting_.erase(item);
    return true;
  }
  return closed_;
}

}  // namespace reprise::replay::gdb
