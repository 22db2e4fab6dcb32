// Packets to and from GDB: framing, checksums, acknowledgements, and its Ctrl-C. Knows nothing of what
// packets mean.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "replay/gdb/byte_stream.h"
#include "replay/gdb/packet_reader.h"

namespace reprise::replay::gdb {

// One GDB, from its first packet to its last. Packets that are damaged or too long are answered here, and
// never seen by the caller. Threads: confined to one.
class Connection {
 public:
  // `stream` outlives this.
  explicit Connection(ByteStream& stream) : stream_(stream) {}

  // Waits for the next packet, and returns its text. Nothing: GDB has closed the connection, in the middle of
  // a packet or not. A Ctrl-C that comes meanwhile came too late, and is dropped. Errors: kHost, also if an
  // answer is refused kMaxRepeats times.
  Result<std::optional<std::string>> receive();

  // `text`: without '#' and '$'. Errors: kHost.
  Status send(std::string_view text);

  // Whether GDB has sent a Ctrl-C since the last packet that was received, or is gone. Reads ahead, to find
  // it.
  bool interrupted();

  // From now on packets are neither acknowledged nor expected to be (QStartNoAckMode).
  void stop_acknowledging() { acknowledge_ = false; }

 private:
  Result<bool> read(bool wait);
  Status answer_damaged(PacketReader::Kind kind);
  Status repeat();
  Status write(std::string_view bytes);

  ByteStream& stream_;
  PacketReader reader_;
  std::deque<PacketReader::Item> waiting_;
  size_t waiting_bytes_ = 0;
  std::string last_;  // as it was sent, to be sent again if GDB asks for it
  unsigned repeats_ = 0;
  bool acknowledge_ = true;
  bool closed_ = false;
};

// How often GDB may refuse one answer. GDB itself gives up after three.
inline constexpr unsigned kMaxRepeats = 8;

}  // namespace reprise::replay::gdb
