// A GDB that sends anything, to the stub over its fake target. An input is bytes as they are, or lines that
// are framed as packets, so that the fuzzer need not find checksums. Nothing may crash or hang; what is sent
// back must be packets; and after the session the target must be as it is for the next one.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "replay/gdb/byte_stream_fake.h"
#include "replay/gdb/debug_target_fake.h"
#include "replay/gdb/server.h"

namespace {

using namespace reprise::replay::gdb;

void deliver(std::string_view input, FakeByteStream& stream) {
  if (input.front() == 'r') {
    stream.arriving.emplace_back(input.substr(1));
    return;
  }
  // A line "^C" is one that arrives while the machine runs.
  for (input.remove_prefix(1); !input.empty();) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    if (line == "^C") {
      stream.early.emplace_back("\x03");
    } else if (!line.empty()) {
      stream.arriving.push_back(frame(line));
    }
    input.remove_prefix(std::min(end + 1, input.size()));
  }
}

// All that was sent is packets, with right checksums, and acknowledgements.
void check(std::string_view sent) {
  while (!sent.empty()) {
    if (sent.front() == '+' || sent.front() == '-') {
      sent.remove_prefix(1);
      continue;
    }
    const size_t end = sent.find('#');
    if (sent.front() != '$' || end == sent.npos || end + 3 > sent.size()) __builtin_trap();
    const std::string_view text = sent.substr(1, end - 1);
    if (text.size() > kMaxPacketBytes || frame(text) != sent.substr(0, end + 3)) __builtin_trap();
    sent.remove_prefix(end + 3);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  FakeByteStream stream;
  deliver({reinterpret_cast<const char*>(data), size}, stream);
  FakeDebugTarget target;
  Connection connection(stream);
  (void)Server(target, target, connection).serve();
  check(stream.sent);
  if (target.inserted() != 0 || target.in_diversion() || target.now() > target.end()) __builtin_trap();
  return 0;
}
