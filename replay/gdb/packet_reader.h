// Packets out of a stream of bytes that may hold anything.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace reprise::replay::gdb {

// Bytes of a packet's text, of which qSupported tells GDB. 16 KiB of memory in one answer; gdbserver's is
// half of this.
inline constexpr size_t kMaxPacketBytes = 32 << 10;

// Threads: confined to one.
class PacketReader {
 public:
  enum class Kind : uint8_t {
    kPacket,       // a whole one, its checksum right
    kBadChecksum,  // a whole one, its checksum wrong
    kTooLong,      // a whole one of more than kMaxPacketBytes, which were not kept
    kRefused,      // '-': the other side wants the last packet again
    kInterrupt,    // 0x03 between packets
  };
  struct Item {
    Kind kind;
    std::string text;  // of kPacket: what is between '$' and '#', escapes resolved
  };

  // Takes all of `bytes`; adds to `items` what they complete. Bytes outside of packets that mean nothing are
  // dropped. A '$' within a packet begins a new one: the end of the old one was lost.
  void feed(std::span<const uint8_t> bytes, std::vector<Item>& items);

 private:
  enum class State : uint8_t { kBetween, kText, kEscaped, kChecksumHigh, kChecksumLow };
  void begin();
  void add(uint8_t byte);
  Item finish(uint8_t last_digit);

  State state_ = State::kBetween;
  std::string text_;
  bool too_long_ = false;
  uint8_t sum_ = 0;
  uint8_t first_digit_ = 0;
};

}  // namespace reprise::replay::gdb
