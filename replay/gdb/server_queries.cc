// 'q' and 'Q' packets: what GDB asks about the session, the threads and the machine.
#include "replay/gdb/server.h"
#include "replay/gdb/target_description.h"
#include "vmm/kvm/cpu_state.h"

namespace reprise::replay::gdb {
namespace {

// Escapes can double what a piece has; a letter comes before it.
constexpr uint64_t kMaxPiece = kMaxPacketBytes / 2 - 8;
// Of a monitor command's output: two digits a byte, a letter before them.
constexpr size_t kMaxOutput = kMaxPacketBytes / 2 - 8;

// The piece of `document` at `range` ("OFFSET,LENGTH"), with whether it is the last.
std::string piece(std::string_view document, PacketText range) {
  const auto offset = range.number();
  const bool has_length = range.take(",");
  const auto length = range.number();
  if (!offset || !has_length || !length || *offset > document.size())
    return error_text("a piece that there is not");
  const std::string_view data = document.substr(*offset, std::min(*length, kMaxPiece));
  return (*offset + data.size() == document.size() ? "l" : "m") + escape(data);
}

}  // namespace

Server::Answer Server::query(std::string_view packet) {
  static constexpr std::array kQueries = {
      Query{"qSupported", &Server::supported},
      Query{"QStartNoAckMode", &Server::stop_acknowledging},
      Query{"qXfer:", &Server::transfer},
      Query{"qC", &Server::current_thread},
      Query{"qfThreadInfo", &Server::first_threads},
      Query{"qsThreadInfo", &Server::more_threads},
      Query{"qThreadExtraInfo,", &Server::thread_state},
      Query{"qAttached", &Server::attached},
      Query{"qRcmd,", &Server::monitor},
      Query{"qqemu.PhyMemMode", &Server::physical_mode},
      Query{"Qqemu.PhyMemMode:", &Server::set_physical_mode},
  };
  for (const Query& query : kQueries) {
    PacketText text(packet);
    if (!text.take(query.prefix)) continue;
    // A name ends where its arguments begin: qCRC is not qC.
    const bool whole = query.prefix.ends_with(':') || query.prefix.ends_with(',') || text.done() ||
                       text.rest().starts_with(':');
    if (whole) return (this->*query.answer)(text);
  }
  return "";
}

Server::Answer Server::supported(PacketText text) {
  text.take(":");
  while (!text.done()) {
    const std::string_view feature = text.until(';');
    if (feature == "swbreak+") reports_swbreak_ = true;
    if (feature == "hwbreak+") reports_hwbreak_ = true;
  }
  return fmt::format(
      "PacketSize={:x};QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;qXfer:memory-map:read+;"
      "ReverseStep+;ReverseContinue+;"
      "swbreak+;hwbreak+;vContSupported+;ConditionalBreakpoints+",
      kMaxPacketBytes);
}

Server::Answer Server::stop_acknowledging(PacketText /*text*/) {
  return "OK";
}

Server::Answer Server::transfer(PacketText text) {
  if (text.take("features:read:target.xml:")) return piece(describe_registers(registers_), text);
  if (text.take("threads:read::")) return piece(describe_threads(target_), text);
  if (text.take("memory-map:read::")) return piece(describe_memory(), text);
  return "";
}

Server::Answer Server::current_thread(PacketText /*text*/) {
  return "QC" + to_hex_number(thread_of(selected_));
}

Server::Answer Server::first_threads(PacketText /*text*/) {
  if (killed_) return "l";
  std::string list;
  for (VcpuId vcpu; vcpu.raw < target_.vcpu_count(); ++vcpu)
    list += (list.empty() ? "m" : ",") + to_hex_number(thread_of(vcpu));
  return list;
}

Server::Answer Server::more_threads(PacketText /*text*/) {
  return "l";
}

Server::Answer Server::thread_state(PacketText text) {
  const auto vcpu = parse_thread(text);
  return vcpu && *vcpu ? to_hex(target_.vcpu_state(**vcpu)) : "E01";
}

// "1": the machine was there before, so GDB lets it go at its end, and does not kill it.
Server::Answer Server::attached(PacketText /*text*/) {
  return "1";
}

Server::Answer Server::monitor(PacketText text) {
  const auto line = from_hex(text.rest());
  if (!line) return "E01";
  if (killed_) {
    tell("the machine was killed; 'run' starts it again\n");
    return "OK";
  }
  tell(monitor_.run({reinterpret_cast<const char*>(line->data()), line->size()}, selected_));
  return "OK";
}

// Output to GDB's console. May only be sent while GDB waits for the end of a command or of a resumption.
void Server::tell(std::string_view text) {
  for (; !text.empty(); text.remove_prefix(std::min(text.size(), kMaxOutput))) {
    // If it cannot be sent, neither can the answer that follows, and that is noticed.
    (void)connection_.send("O" + to_hex(text.substr(0, kMaxOutput)));
  }
}

// Source: QEMU, docs/system/gdb.rst, "Advanced debugging options", "Memory modes".
Server::Answer Server::physical_mode(PacketText /*text*/) {
  return physical_ ? "1" : "0";
}

Server::Answer Server::set_physical_mode(PacketText text) {
  const auto mode = text.number();
  if (!mode || *mode > 1) return "E22";
  physical_ = *mode == 1;
  return "OK";
}

}  // namespace reprise::replay::gdb
