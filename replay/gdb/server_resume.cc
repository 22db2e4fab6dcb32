// Packets that make the machine run, and what GDB is told when it stops.
#include "replay/gdb/server.h"
#include "replay/gdb/target_description.h"

namespace reprise::replay::gdb {
namespace {

// GDB's numbers. Source: gdb/include/gdb/signals.def.
constexpr unsigned kSigint = 2;
constexpr unsigned kSigtrap = 5;
constexpr unsigned kSigabrt = 6;

std::string_view watch_name(BreakpointKind kind) {
  return kind == BreakpointKind::kWrite ? "watch" : kind == BreakpointKind::kRead ? "rwatch" : "awatch";
}

}  // namespace

Server::Answer Server::multi_letter(std::string_view packet) {
  PacketText text(packet);
  if (packet == "vCont?") return "vCont;c;C;s;S;r";
  if (text.take("vKill;")) return kill();
  if (text.take("vRun;") || packet == "vRun") return restart(text);
  if (text.take("vAttach;")) {
    killed_ = false;
    return stop_reply();
  }
  if (!text.take("vCont;")) return "";  // vMustReplyEmpty is one of them
  if (killed_) return error_text("the machine was killed; 'run' starts it again");
  return resume_actions(text);
}

Server::Answer Server::resume_actions(PacketText text) {
  const auto resumption = parse_actions(text);
  return resumption ? resume(*resumption) : error_text(resumption.error().message);
}

// ACTION[:THREAD];... The first action that holds for a thread is the thread's. In the recorded order no vCPU
// can be held or let go: what counts is whether one of them is to be stepped. Signals mean nothing to a
// machine.
Result<Server::Resumption> Server::parse_actions(PacketText text) const {
  std::optional<Resumption> found;
  while (!text.done()) {
    PacketText action(text.until(';'));
    Resumption resumption;
    if (action.take("r")) {
      const auto begin = action.number();
      const bool has_end = action.take(",");
      const auto end = action.number();
      if (!begin || !has_end || !end)
        return fail(ErrorCode::kUsage, "a range to step in that cannot be understood");
      resumption = {.step = selected_, .range_begin = Gva(*begin), .range_end = Gva(*end)};
    } else if (action.take("s") || (action.take("S") && action.number())) {
      resumption.step = selected_;
    } else if (!action.take("c") && !(action.take("C") && action.number())) {
      return fail(ErrorCode::kUsage, "an action that is none of c, C, s, S, r");
    }
    if (action.take(":")) {
      TRY_ASSIGN(const auto vcpu, parse_thread(action));
      if (vcpu && resumption.step) resumption.step = *vcpu;
    }
    if (!action.done()) return fail(ErrorCode::kUsage, "an action that cannot be understood");
    if (!found || (!found->step && resumption.step)) found = resumption;
  }
  if (!found) return fail(ErrorCode::kUsage, "no action");
  return *found;
}

Server::Answer Server::resume_old(char kind, PacketText text) {
  const bool has_signal = kind == 'C' || kind == 'S';
  if (has_signal) text.number();
  if (!text.done()) return error_text("a recorded machine cannot go on at another address");
  const bool steps = kind == 's' || kind == 'S';
  return resume({.step = steps ? std::optional(resumed_.value_or(selected_)) : std::nullopt});
}

Server::Answer Server::resume_backward(PacketText text) {
  if (text.rest() == "c") return resume({.direction = Direction::kBackward});
  if (text.rest() == "s")
    return resume({.direction = Direction::kBackward, .step = resumed_.value_or(selected_)});
  return "";
}

Server::Answer Server::resume(const Resumption& resumption) {
  const auto stop = run(resumption);
  if (const std::string console = target_.take_diverted_console(); !console.empty()) tell(console);
  failed_ = !stop;
  if (stop) {
    stopped_ = *stop;
    selected_ = stop->vcpu;
  } else {
    stopped_.reset();
    tell(stop.error().message + "\n");
  }
  return stop_reply();
}

Result<StopEvent> Server::run(const Resumption& resumption) {
  if (!resumption.step) return target_.resume(resumption.direction, selected_, *this);
  while (true) {
    TRY_ASSIGN(const StopEvent stop, target_.step(*resumption.step, resumption.direction, *this));
    if (stop.reason != StopReason::kStep || resumption.range_begin == resumption.range_end) return stop;
    TRY_ASSIGN(const Registers registers, target_.registers(*resumption.step));
    const Gva at(registers.general.rip);
    if (at < resumption.range_begin || at >= resumption.range_end) return stop;
    if (interrupted()) return StopEvent{.reason = StopReason::kInterrupted, .vcpu = *resumption.step};
  }
}

// vRun;PROGRAM;ARGUMENT...: there is one program, the recording. The first argument says where to go; the
// beginning without it.
Server::Answer Server::restart(PacketText text) {
  text.until(';');
  const auto argument = from_hex(text.until(';'));
  const std::string where = argument ? std::string(argument->begin(), argument->end()) : "";
  const auto mark = where.empty() ? target_.begin() : monitor_.find_mark(where);
  if (!mark) return error_text(mark.error().message);
  if (const Status ended = target_.end_diversion(); !ended) return error_text(ended.error().message);
  if (const Status sought = target_.seek(*mark, *this); !sought) return error_text(sought.error().message);
  killed_ = failed_ = false;
  stopped_.reset();
  selected_ = VcpuId(0);
  return stop_reply();
}

Server::Answer Server::kill() {
  killed_ = true;
  breakpoints_.clear();
  return done(target_.end_diversion());
}

Server::Answer Server::stop_reply() {
  if (killed_) return "W00";
  unsigned signal = failed_ ? kSigabrt : kSigtrap;
  std::string why;
  if (stopped_) {
    const Breakpoint& hit = stopped_->hit;
    switch (stopped_->reason) {
      case StopReason::kBreakpoint:
        if (hit.kind == BreakpointKind::kSoftware && reports_swbreak_) why = "swbreak:;";
        if (hit.kind == BreakpointKind::kHardware && reports_hwbreak_) why = "hwbreak:;";
        break;
      case StopReason::kWatchpoint:
        why = fmt::format("{}:{:x};", watch_name(hit.kind), stopped_->accessed.raw);
        break;
      case StopReason::kStep:
        break;
      case StopReason::kBegin:
        why = "replaylog:begin;";
        break;
      case StopReason::kEnd:
        why = "replaylog:end;";
        break;
      case StopReason::kInterrupted:
        signal = kSigint;
        break;
    }
  }
  std::string reply = fmt::format("T{:02x}{}", signal, why);
  // What GDB looks at after each step, so that it need not ask.
  if (const auto registers = target_.registers(selected_)) {
    for (const uint32_t number : {kRegisterRbp, kRegisterRsp, kRegisterRip})
      reply += fmt::format("{:02x}:{};", number, to_hex(*registers_.get(*registers, number)));
  }
  return reply + fmt::format("thread:{:x};", thread_of(selected_));
}

}  // namespace reprise::replay::gdb
