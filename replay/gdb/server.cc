#include "replay/gdb/server.h"

#include <vector>

#include "replay/gdb/socket.h"
#include "replay/gdb/target_description.h"

namespace reprise::replay::gdb {
namespace {

// EFAULT, as gdbserver answers; GDB words it itself.
constexpr std::string_view kNotMapped = "E14";

bool has_avx(const DebugTarget& target) {
  const auto registers = target.registers(VcpuId(0));
  return registers && registers->ymm_high.has_value();
}

}  // namespace

Server::Server(DebugTarget& target, RecordingAnswers& answers, Connection& connection, Remark remark)
    : target_(target),
      connection_(connection),
      remark_(std::move(remark)),
      registers_(has_avx(target)),
      breakpoints_(target, registers_),
      monitor_(target, answers, *this) {}

Result<SessionEnd> serve_client(UniqueFd client, DebugTarget& target, RecordingAnswers& answers,
                                Remark remark) {
  SocketStream stream(std::move(client));
  Connection connection(stream);
  return Server(target, answers, connection, std::move(remark)).serve();
}

Result<SessionEnd> Server::serve() {
  Result<SessionEnd> result = SessionEnd::kDisconnected;
  while (!end_) {
    const auto packet = connection_.receive();
    if (!packet) result = tl::unexpected(packet.error());
    if (!packet || !*packet) break;
    const auto text = answer(**packet);
    if (!text) continue;
    if (const Status sent = connection_.send(*text); !sent) {
      result = tl::unexpected(sent.error());
      break;
    }
    if (*text == "OK" && (*packet)->starts_with("QStartNoAckMode")) connection_.stop_acknowledging();
  }
  breakpoints_.clear();
  if (const Status ended = target_.end_diversion(); !ended) return tl::unexpected(ended.error());
  if (end_) return *end_;
  return result;
}

std::optional<Server::Answer> Server::answer(std::string_view packet) {
  if (packet.empty()) return "";
  PacketText text(packet.substr(1));
  switch (packet[0]) {
    case '!':
      return "OK";
    case '?':
      return stop_reply();
    case 'D':
      return detach();
    case 'H':
      return select_thread(text);
    case 'R':
      (void)restart(PacketText(""));
      return std::nullopt;
    case 'T':
      return is_alive(text);
    case 'k':
      end_ = SessionEnd::kKilled;
      return std::nullopt;
    case 'q':
    case 'Q':
      return query(packet);
    case 'v':
      return multi_letter(packet);
    default:
      return answer_alive(packet[0], text);
  }
}

// Those that need a machine.
std::optional<Server::Answer> Server::answer_alive(char kind, PacketText text) {
  if (killed_) return error_text("the machine was killed; 'run' starts it again");
  switch (kind) {
    case 'g':
      return read_registers();
    case 'G':
      return write_registers(text);
    case 'p':
      return read_register(text);
    case 'P':
      return write_register(text);
    case 'm':
      return read_memory(text);
    case 'M':
      return write_memory(text, false);
    case 'X':
      return write_memory(text, true);
    case 'Z':
      return done(breakpoints_.insert(text.rest()));
    case 'z':
      return done(breakpoints_.remove(text.rest()));
    case 'b':
      return resume_backward(text);
    case 'c':
    case 'C':
    case 's':
    case 'S':
      return resume_old(kind, text);
    default:
      return "";
  }
}

Server::Answer Server::done(const Status& status) {
  return status ? "OK" : error_text(status.error().message);
}

Result<std::optional<VcpuId>> Server::parse_thread(PacketText& text) const {
  if (text.take("-1")) return std::nullopt;
  const auto number = text.number();
  if (!number || *number > target_.vcpu_count())
    return fail(ErrorCode::kUsage, "there is no such thread; there are 1 to {}", target_.vcpu_count());
  if (*number == 0) return std::nullopt;
  return VcpuId(static_cast<uint32_t>(*number - 1));
}

Server::Answer Server::select_thread(PacketText text) {
  const bool for_resumption = text.take("c");
  if (!for_resumption && !text.take("g")) return "";
  const auto vcpu = parse_thread(text);
  if (!vcpu) return error_text(vcpu.error().message);
  if (for_resumption) {
    resumed_ = *vcpu;
  } else if (*vcpu) {
    selected_ = **vcpu;
  }
  return "OK";
}

Server::Answer Server::is_alive(PacketText text) {
  const auto vcpu = parse_thread(text);
  return vcpu && *vcpu && !killed_ ? "OK" : "E01";
}

Server::Answer Server::read_registers() {
  const auto registers = target_.registers(selected_);
  return registers ? to_hex(registers_.get_all(*registers)) : error_text(registers.error().message);
}

Server::Answer Server::write_registers(PacketText text) {
  const auto values = from_hex(text.rest());
  auto registers = target_.registers(selected_);
  if (!registers) return error_text(registers.error().message);
  if (!values) return error_text("registers that are not hexadecimal");
  if (const Status set = registers_.set_all(*registers, *values); !set) return done(set);
  return done(target_.set_registers(selected_, *registers));
}

Server::Answer Server::read_register(PacketText text) {
  const auto number = text.number();
  const auto registers = target_.registers(selected_);
  if (!registers) return error_text(registers.error().message);
  if (!number || *number >= registers_.count()) return "E01";
  return to_hex(*registers_.get(*registers, static_cast<uint32_t>(*number)));
}

Server::Answer Server::write_register(PacketText text) {
  const auto number = text.number();
  const bool has_value = text.take("=");
  const auto value = from_hex(text.rest());
  auto registers = target_.registers(selected_);
  if (!registers) return error_text(registers.error().message);
  if (!number || *number >= registers_.count() || !has_value || !value)
    return error_text("a register that there is not, or no value");
  if (const Status set = registers_.set(*registers, static_cast<uint32_t>(*number), *value); !set)
    return done(set);
  return done(target_.set_registers(selected_, *registers));
}

Server::Answer Server::read_memory(PacketText text) {
  const auto address = text.number();
  const bool has_length = text.take(",");
  const auto length = text.number();
  if (!address || !has_length || !length) return error_text("memory that cannot be understood");
  // Two digits a byte must fit into an answer. An answer with fewer bytes than were asked for is no error.
  std::vector<uint8_t> bytes(std::min<uint64_t>(*length, kMaxPacketBytes / 2 - 8));
  bytes.resize(physical_ ? target_.read_physical(selected_, Gpa(*address), bytes)
                         : target_.read(selected_, Gva(*address), bytes));
  return bytes.empty() && *length != 0 ? std::string(kNotMapped) : to_hex(bytes);
}

Server::Answer Server::write_memory(PacketText text, bool binary) {
  const auto address = text.number();
  const bool has_length = text.take(",");
  const auto length = text.number();
  if (!address || !has_length || !length || !text.take(":"))
    return error_text("memory that cannot be understood");
  const auto* const data = reinterpret_cast<const uint8_t*>(text.rest().data());
  const auto bytes = binary ? std::vector<uint8_t>(data, data + text.rest().size()) : from_hex(text.rest());
  if (!bytes || bytes->size() != *length) return error_text("memory of another length than was said");
  // GDB asks with zero bytes whether it may send binary data at all.
  if (bytes->empty()) return "OK";
  const Status written = write(*address, *bytes);
  // Source: GDB 13, remote.c, remote_write_bytes_aux(): of an error it takes no text, unlike of registers.
  if (!written && remark_) remark_(written.error().message);
  return done(written);
}

Status Server::write(uint64_t address, std::span<const uint8_t> bytes) {
  return physical_ ? target_.write_physical(Gpa(address), bytes)
                   : target_.write(selected_, Gva(address), bytes);
}

Server::Answer Server::detach() {
  end_ = SessionEnd::kDetached;
  return "OK";
}

}  // namespace reprise::replay::gdb
