#include "vmm/record/record_journal.h"

#include <sys/random.h>

namespace reprise::vmm {
namespace {

Result<uint64_t> random_value() {
  uint64_t value = 0;
  // So few bytes come whole or not at all. Source: getrandom(2).
  if (::getrandom(&value, sizeof value, 0) != sizeof value)
    return fail_errno(ErrorCode::kHost, errno, "the host has no random numbers");
  return value;
}

}  // namespace

RecordJournal::RecordJournal(VcpuId vcpu, World& world, ept::Ownership& ownership,
                             std::span<const std::unique_ptr<ept::Mailbox>> mailboxes, ept::View& view,
                             const ept::PolicyOptions& policy, ept::Domains* domains, log::VcpuLogWriter* log,
                             uint64_t digest_every)
    : vcpu_(vcpu),
      world_(world),
      mailbox_(*mailboxes[vcpu.raw]),
      crew_(vcpu, ownership, mailboxes, view, *this, policy, domains),
      domains_(domains),
      turn_(view.turn()),
      log_(log),
      digest_every_(digest_every) {}

Result<std::optional<AsyncEvent>> RecordJournal::next_async() {
  TRY(crew_.service(yielding_));
  yielding_ = false;
  // Once a position: or messages that come faster than chaos lets them be taken would keep the vCPU at this
  // one for ever.
  if (crew_.policy().chaotic() && unsettled_ != at()) {
    unsettled_ = at();
    TRY(crew_.drop_some());
    TRY(crew_.flip_domains());
    TRY(crew_.merge_if_due());
    TRY(crew_.hold_back());
  }
  while (!crew_.letters().empty()) {
    const ept::Letter letter = crew_.letters().front();
    crew_.letters().pop_front();
    if (std::holds_alternative<ept::StopRequest>(letter)) return AsyncEvent(Leave{});
    const auto& delivery = std::get<ept::Delivery>(letter);
    if (!world_.is_current(vcpu_, delivery)) continue;  // the guest has set or stopped its timer meanwhile
    return std::visit(
        [this](const auto& what) {
          note_async(what);
          append(what);
          return Result<std::optional<AsyncEvent>>(AsyncEvent(what));
        },
        delivery.what);
  }
  return std::optional<AsyncEvent>();
}

Status RecordJournal::wait() {
  while (crew_.letters().empty()) {
    TRY(crew_.service(true));
    if (!crew_.letters().empty()) break;
    world_.enter_idle(vcpu_);
    const uint64_t start = monotonic_ns();
    crew_.wait_for_mail();
    idle_ns_ += monotonic_ns() - start;
    world_.leave_idle(vcpu_);
  }
  return {};
}

Ticks RecordJournal::next_stop() {
  if (!crew_.letters().empty()) return Ticks(0);
  if (crew_.is_looked_at()) return at().ticks + 1;
  if (const auto early = crew_.policy().early_stop()) return at().ticks + *early;
  return kNoTick;
}

Status RecordJournal::stopped_in_user_mode(const UserStop& stop) {
  note_async(stop);
  std::visit([this](const auto& at) { append(at); }, stop);
  return {};
}

Result<Acquired> RecordJournal::acquire(std::span<const PageRight> needed, bool again) {
  // Pages are what merging is about: then the turn is lost here, and asked for again before them.
  if (needed.front().page != turn_) {
    TRY_ASSIGN(const bool merges, crew_.merge_if_due());
    if (merges) return Acquired::kGranted;
  }
  TRY_ASSIGN(const bool granted, crew_.acquire(needed, again));
  return granted ? Acquired::kGranted : Acquired::kStopping;
}

Status RecordJournal::stopped(uint64_t registers) {
  if (digest_every_ != 0 && at().stops % digest_every_ == 0) append(log::Digest{with_inputs(registers)});
  return {};
}

Status RecordJournal::compared_machine(uint64_t digest) {
  append(log::MachineDigest{digest});
  return {};
}

Status RecordJournal::ended(uint64_t registers) {
  append(log::End{registers});
  // Nothing is executed here any more, but others may still need what this vCPU holds: they stop at their own
  // positions.
  return {};
}

void RecordJournal::perform(const Effect& effect) {
  if (const auto* send = std::get_if<SendMessage>(&effect)) world_.send(send->destination, send->message);
  if (const auto* arm = std::get_if<ArmTimer>(&effect)) world_.arm_timer(vcpu_, *arm);
  if (std::holds_alternative<DisarmTimer>(effect)) world_.disarm_timer(vcpu_);
  if (const auto* tick = std::get_if<SetTick>(&effect)) world_.set_tick(*tick);
}

Result<uint64_t> RecordJournal::value(log::Source source) {
  uint64_t value = 0;
  switch (source) {
    case log::Source::kTime:
      value = world_.now_ns();
      break;
    case log::Source::kTimerCount:
      value = world_.timer_count(vcpu_);
      break;
    case log::Source::kRandom: {
      TRY_ASSIGN(value, random_value());
      break;
    }
    case log::Source::kConsoleInput:
    case log::Source::kConsoleStatus:
      break;  // no device asks for these any more
  }
  note_input(value);
  append(log::Value{source, value});
  return value;
}

}  // namespace reprise::vmm
