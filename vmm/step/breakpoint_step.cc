#include "vmm/step/breakpoint_step.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "vmm/kvm/cpu_state.h"
#include "vmm/kvm/segment_descriptor.h"
#include "x86/exception_frame.h"
#include "x86/interrupt_gate.h"
#include "x86/rflags.h"

namespace reprise::vmm {
namespace {

constexpr uint8_t kHaltByte = 0xf4;
// Source: Intel SDM vol. 3, table 6-1 (vectors), figure 8-11 (TSS), 6.14.2 (frames), 3.4.5 (descriptors).
constexpr uint8_t kProtectionVector = 13, kPageFaultVector = 14;
constexpr unsigned kExceptions = 32;
constexpr uint64_t kDescriptorAccessed = 1ull << 40;
constexpr size_t kFrameBytes = sizeof(x86::ExceptionFrame);

bool in_long_mode(const kvm_sregs& sregs) {
  return (sregs.efer & x86::kEferLongModeActive) != 0;
}

// RAM whatever the view grants.
class AllMemory final : public x86::PhysicalReader {
 public:
  explicit AllMemory(const ViewMemory& memory) : memory_(memory) {}
  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override {
    const uint8_t* const from = memory_.at(gpa, out.size());
    if (from == nullptr) return false;
    std::memcpy(out.data(), from, out.size());
    return true;
  }

 private:
  const ViewMemory& memory_;
};

class TemporaryBreakpoints {
 public:
  TemporaryBreakpoints(KvmVcpu& vcpu, ViewMemory& memory, const StepPlan& plan, const kvm_sregs& sregs)
      : vcpu_(vcpu),
        plan_(plan),
        sregs_(sregs),
        memory_(memory),
        all_(memory),
        linear_(paging_of(sregs), all_) {}
  ~TemporaryBreakpoints() { take_down(); }
  TemporaryBreakpoints(const TemporaryBreakpoints&) = delete;
  TemporaryBreakpoints& operator=(const TemporaryBreakpoints&) = delete;

  // False: it cannot be put up.
  bool put_up();
  Result<StepOutcome> run();

 private:
  void take_down();
  void put(Gva address);
  [[nodiscard]] bool is_marked(Gva address, x86::LinearAccess access) const;
  [[nodiscard]] bool keep_frame(uint8_t vector);
  [[nodiscard]] bool reads_a_breakpoint() const;
  Result<StepOutcome> arrive(ExitKind exit);
  Result<bool> return_to_user(uint8_t vector, const kvm_regs& after);
  Status leave_fault_in_user();
  [[nodiscard]] std::optional<kvm_segment> user_segment(uint64_t selector, bool code) const;

  KvmVcpu& vcpu_;
  const StepPlan& plan_;
  const kvm_sregs sregs_;
  ViewMemory& memory_;
  AllMemory all_;
  x86::LinearMemory linear_;
  std::map<Gva, uint8_t> handlers_;                  // with their vectors
  std::map<uint8_t*, uint8_t> planted_;              // what was there
  std::vector<PageNumber> pages_;                    // on which bytes are planted
  std::vector<std::pair<uint8_t*, uint8_t>> under_;  // what was where delivery pushes its frame
};

void TemporaryBreakpoints::put(Gva address) {
  const auto at = linear_.translate(address);
  uint8_t* const byte = at.has_value() ? memory_.writable(*at, 1) : nullptr;
  if (byte == nullptr || !planted_.emplace(byte, *byte).second) return;
  pages_.push_back(page_of(*at));
  *byte = kHaltByte;
}

void TemporaryBreakpoints::take_down() {
  for (const auto& [at, byte] : planted_) *at = byte;
  planted_.clear();
}

bool TemporaryBreakpoints::put_up() {
  const auto add = [this](uint8_t vector) {
    if (const auto gate = x86::read_gate(linear_, sregs_.efer, {sregs_.idt.base, sregs_.idt.limit}, vector))
      handlers_.emplace(gate->handler, vector);
  };
  // The first at an address names it: these are told apart.
  add(kProtectionVector);
  add(kPageFaultVector);
  for (unsigned vector = 0; vector < kExceptions; ++vector) add(static_cast<uint8_t>(vector));
  if (plan_.vector.has_value()) add(*plan_.vector);
  if (handlers_.empty() && !plan_.next.has_value()) return false;
  if (plan_.next.has_value()) {
    if (handlers_.contains(*plan_.next)) return false;
    if (plan_.next_is_user && (!keep_frame(kProtectionVector) || !keep_frame(kPageFaultVector))) return false;
    put(*plan_.next);
  }
  for (const auto& [address, vector] : handlers_) put(address);
  return !reads_a_breakpoint();
}

// Whether the walk to `address` finds all accessed and dirty bits set, and so leaves none behind.
bool TemporaryBreakpoints::is_marked(Gva address, x86::LinearAccess access) const {
  const auto walk = x86::walk_page(paging_of(sregs_), all_, address, access, false);
  return walk.outcome == x86::WalkOutcome::kMapped &&
         std::ranges::all_of(walk.tables(),
                             [](const PageRight& table) { return table.right == Right::kRead; });
}

// Looks where delivery out of user mode will push its frame, and keeps what is there. False: it would leave
// more behind than that.
bool TemporaryBreakpoints::keep_frame(uint8_t vector) {
  constexpr x86::LinearAccess kSystem{.implicit_system = true};
  const auto gate = x86::read_gate(linear_, sregs_.efer, {sregs_.idt.base, sregs_.idt.limit}, vector);
  if (!gate.has_value()) return false;
  const Gva slot(sregs_.tr.base + (gate->stack != 0 ? 0x24 + (gate->stack - 1) * 8u : 4));
  const Gva gate_address(sregs_.idt.base + vector * x86::kGateBytes);
  const Gva descriptor_address(sregs_.gdt.base + (gate->selector & 0xfff8u));
  uint64_t stack = 0, descriptor = 0;
  if (linear_.read(slot, {reinterpret_cast<uint8_t*>(&stack), sizeof stack}, kSystem) < sizeof stack ||
      linear_.read(descriptor_address, {reinterpret_cast<uint8_t*>(&descriptor), sizeof descriptor},
                   kSystem) < sizeof descriptor)
    return false;
  const Gva top(stack & ~0xfull);
  if ((descriptor & kDescriptorAccessed) == 0 || !is_marked(slot, kSystem) ||
      !is_marked(gate_address, kSystem) || !is_marked(descriptor_address, kSystem) ||
      !is_marked(gate->handler, {.fetch = true}) || !is_marked(Gva(top.raw - 1), {.write = true}) ||
      !is_marked(Gva(top.raw - kFrameBytes), {.write = true}))
    return false;
  for (uint64_t i = 1; i <= kFrameBytes; ++i) {
    const auto at = linear_.translate(Gva(top.raw - i), {.write = true});
    uint8_t* const byte = at.has_value() ? memory_.writable(*at, 1) : nullptr;
    if (byte == nullptr) return false;
    under_.emplace_back(byte, *byte);
  }
  return true;
}

// Whether a repeated instruction may come to a page that a byte is on.
bool TemporaryBreakpoints::reads_a_breakpoint() const {
  const bool user = sregs_.ss.dpl == 3;
  for (const LinearRange& range : plan_.ranges) {
    const uint64_t last = range.start.raw + range.bytes - 1;
    for (uint64_t page = range.start.raw >> kPageShift; page <= last >> kPageShift; ++page) {
      const auto at = linear_.translate(Gva(page << kPageShift), {.user = user});
      if (at.has_value() && std::ranges::find(pages_, page_of(*at)) != pages_.end()) return true;
    }
  }
  return false;
}

Result<StepOutcome> TemporaryBreakpoints::run() {
  vcpu_.shared().request_interrupt_window = 0;
  ExitKind exit = ExitKind::kInterrupted;
  // The host may interrupt as often as it likes; who really wants the vCPU requests an exit.
  while (exit == ExitKind::kInterrupted) {
    TRY_ASSIGN(exit, vcpu_.run());
    if (vcpu_.forced_exit().is_requested()) break;
  }
  take_down();
  return arrive(exit);
}

Result<StepOutcome> TemporaryBreakpoints::arrive(ExitKind exit) {
  const StepOutcome stopped{.carried_out = false, .exit = exit}, carried_out{.carried_out = true, .exit = {}};
  // Where the page is missing in the view that a byte was planted on, it ends by that.
  if (exit != ExitKind::kHalt && exit != ExitKind::kFault && exit != ExitKind::kInternalError) return stopped;
  TRY_ASSIGN(kvm_regs after, vcpu_.registers());
  if (exit == ExitKind::kHalt) --after.rip;
  TRY_ASSIGN(const kvm_sregs now, vcpu_.special_registers());
  const bool is_64bit = in_long_mode(now) && now.cs.l != 0;
  const Gva here(is_64bit ? after.rip : (now.cs.base + after.rip) & 0xffff'ffff);
  if (const auto handler = handlers_.find(here); handler != handlers_.end() && now.ss.dpl != 3) {
    TRY_ASSIGN(const bool returned, return_to_user(handler->second, after));
    if (returned) return carried_out;
  } else if (here != plan_.next) {
    return stopped;
  } else if (plan_.next_is_user) {
    if (exit == ExitKind::kHalt) return stopped;
    TRY(leave_fault_in_user());
    return carried_out;
  }
  if (exit == ExitKind::kHalt) TRY(vcpu_.set_registers(after));
  return carried_out;
}

// The fault that shows that user mode was reached was on its way to a page that is missing.
Status TemporaryBreakpoints::leave_fault_in_user() {
  TRY_ASSIGN(kvm_vcpu_events events, vcpu_.events());
  events.exception = {};
  TRY(vcpu_.set_events(events));
  TRY_ASSIGN(kvm_sregs now, vcpu_.special_registers());
  now.cr2 = sregs_.cr2;
  return vcpu_.set_special_registers(now);
}

std::optional<kvm_segment> TemporaryBreakpoints::user_segment(uint64_t selector, bool code) const {
  const kvm_segment& before = code ? sregs_.cs : sregs_.ss;
  if (plan_.segments == UserSegments::kUnchanged) return before;
  if (plan_.segments == UserSegments::kFlat) {
    kvm_segment segment{};
    segment.selector = static_cast<uint16_t>(selector);
    segment.limit = 0xffffffff;
    segment.type = code ? 11 : 3;
    segment.present = segment.s = segment.g = 1;
    segment.dpl = 3;
    segment.l = code ? 1 : 0;
    segment.db = code ? 0 : 1;
    return segment;
  }
  return read_segment(linear_, sregs_, static_cast<uint16_t>(selector));
}

// True: what came to the handler was the halt behind the instruction, or that it could not be fetched;
// undone. False: it is the guest's own.
Result<bool> TemporaryBreakpoints::return_to_user(uint8_t vector, const kvm_regs& after) {
  if (!plan_.next_is_user || (vector != kProtectionVector && vector != kPageFaultVector)) return false;
  const auto frame = read_exception_frame(linear_, Gva(after.rsp));
  if (!frame.has_value())
    return fail(ErrorCode::kHost, "the frame of an exception at {:#x} cannot be read", after.rsp);
  const auto [error, rip, cs, rflags, rsp, ss] = *frame;
  if (Gva(rip) != plan_.next || (cs & 3) != 3) return false;
  const auto code = user_segment(cs, true), data = user_segment(ss, false);
  if (!code.has_value() || !data.has_value())
    return fail(ErrorCode::kHost, "the segments of user mode ({:#x}, {:#x}) cannot be read", cs, ss);
  for (const auto& [at, byte] : under_) *at = byte;
  TRY_ASSIGN(kvm_sregs now, vcpu_.special_registers());
  now.cs = *code;
  now.ss = *data;
  now.cr2 = sregs_.cr2;
  TRY(vcpu_.set_special_registers(now));
  kvm_regs user = after;
  user.rip = rip;
  user.rsp = rsp;
  user.rflags = rflags & ~x86::kResumeFlag;
  TRY(vcpu_.set_registers(user));
  return true;
}

}  // namespace

Result<StepOutcome> step_between_breakpoints(KvmVcpu& vcpu, ViewMemory& memory, const StepPlan& plan) {
  TRY_ASSIGN(const kvm_sregs sregs, vcpu.special_registers());
  TemporaryBreakpoints breakpoints(vcpu, memory, plan, sregs);
  if (!breakpoints.put_up()) return StepOutcome();
  return breakpoints.run();
}

}  // namespace reprise::vmm
