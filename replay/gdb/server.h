// The GDB remote protocol over a DebugTarget: what each packet means. vCPUs are threads; the machine stops
// and runs as a whole (all-stop). docs/debugging.md has the list of packets that are not answered.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "replay/gdb/breakpoint_table.h"
#include "replay/gdb/connection.h"
#include "replay/gdb/debug_target.h"
#include "replay/gdb/monitor.h"
#include "replay/gdb/packet_text.h"
#include "replay/gdb/register_map.h"

namespace reprise::replay::gdb {

enum class SessionEnd : uint8_t {
  kDetached,      // GDB let the machine go
  kKilled,        // GDB wanted it to end
  kDisconnected,  // GDB is gone
};

// Takes a sentence for whoever debugs that GDB would not show. May be empty. Threads: called on the
// session's.
using Remark = std::function<void(const std::string&)>;

// One session with one GDB. Threads: confined to one.
class Server final : private RunListener {
 public:
  // All outlive this. `remark` is given why a write to memory is refused: GDB words that error itself.
  Server(DebugTarget& target, RecordingAnswers& answers, Connection& connection, Remark remark = {});

  // Answers until the session ends. Then the target has no breakpoints, is in no diversion, and stands where
  // GDB left it. Errors: the connection's; also then the next GDB can be served.
  Result<SessionEnd> serve();

 private:
  using Answer = std::string;  // the text of a packet; empty: not known here
  struct Query {
    std::string_view prefix;
    Answer (Server::*answer)(PacketText);
  };
  // What GDB wants of one resumption.
  struct Resumption {
    Direction direction = Direction::kForward;
    std::optional<VcpuId> step;  // of this vCPU
    Gva range_begin, range_end;  // as long as it is in here, and at least once
  };

  // --- server.cc ---
  // Nothing: no answer is expected.
  std::optional<Answer> answer(std::string_view packet);
  std::optional<Answer> answer_alive(char kind, PacketText text);
  Answer select_thread(PacketText text);
  Answer is_alive(PacketText text);
  Answer read_registers();
  Answer write_registers(PacketText text);
  Answer read_register(PacketText text);
  Answer write_register(PacketText text);
  Answer read_memory(PacketText text);
  Answer write_memory(PacketText text, bool binary);
  Status write(uint64_t address, std::span<const uint8_t> bytes);
  Answer detach();
  static Answer done(const Status& status);

  // --- server_queries.cc ---
  Answer query(std::string_view packet);
  Answer supported(PacketText text);
  Answer stop_acknowledging(PacketText text);
  Answer transfer(PacketText text);
  Answer current_thread(PacketText text);
  Answer first_threads(PacketText text);
  Answer more_threads(PacketText text);
  Answer thread_state(PacketText text);
  Answer attached(PacketText text);
  Answer monitor(PacketText text);
  Answer physical_mode(PacketText text);
  Answer set_physical_mode(PacketText text);

  // --- server_resume.cc ---
  Answer multi_letter(std::string_view packet);
  Answer resume_actions(PacketText text);
  Result<Resumption> parse_actions(PacketText text) const;
  Answer resume_old(char kind, PacketText text);
  Answer resume_backward(PacketText text);
  Answer resume(const Resumption& resumption);
  Result<StopEvent> run(const Resumption& resumption);
  Answer restart(PacketText text);
  Answer kill();
  Answer stop_reply();
  void tell(std::string_view text);

  bool interrupted() override { return connection_.interrupted(); }
  bool wants(const StopEvent& stop) override { return breakpoints_.wants(stop); }

  // The vCPU of a thread number. Nothing: all or any of them. Errors: kUsage.
  [[nodiscard]] Result<std::optional<VcpuId>> parse_thread(PacketText& text) const;

  DebugTarget& target_;
  Connection& connection_;
  Remark remark_;
  RegisterMap registers_;
  BreakpointTable breakpoints_;
  Monitor monitor_;
  std::optional<SessionEnd> end_;

  VcpuId selected_;                   // Hg
  std::optional<VcpuId> resumed_;     // Hc
  std::optional<StopEvent> stopped_;  // what the last stop reply told
  bool failed_ = false;               // it told of an error
  bool killed_ = false;               // until the next vRun
  bool reports_swbreak_ = false;      // GDB understands these stop reasons
  bool reports_hwbreak_ = false;
  bool physical_ = false;  // addresses of memory are guest-physical
};

// Serves the GDB at the other end of `client`, a connected stream socket. Errors: as Server::serve().
Result<SessionEnd> serve_client(UniqueFd client, DebugTarget& target, RecordingAnswers& answers,
                                Remark remark = {});

}  // namespace reprise::replay::gdb
