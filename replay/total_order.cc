#include "replay/total_order.h"

#include <algorithm>

namespace reprise::replay {
namespace {

constexpr Ticket kNoTicket{~0ull};

// One log, from ticket to ticket. Threads: confined to its owner.
class TicketWalk {
 public:
  TicketWalk(VcpuId vcpu, log::VcpuLogReader reader) : vcpu_(vcpu), reader_(std::move(reader)) {}

  // To the next ticket, the first one being 1. Errors: kDamaged, also where tickets go back.
  Status advance() {
    for (;;) {
      TRY_ASSIGN(const auto event, reader_.next());
      const auto ticket = event.has_value() ? ticket_of(*event) : kNoTicket;
      if (!ticket.has_value()) continue;
      if (*ticket <= ticket_)
        return fail(ErrorCode::kDamaged, "vCPU {}'s log has ticket {} behind ticket {}", vcpu_.raw,
                    ticket->raw, ticket_.raw);
      ticket_ = *ticket;
      return {};
    }
  }

  [[nodiscard]] VcpuId vcpu() const { return vcpu_; }
  [[nodiscard]] Ticket ticket() const { return ticket_; }
  [[nodiscard]] bool at_end() const { return ticket_ == kNoTicket; }

 private:
  VcpuId vcpu_;
  log::VcpuLogReader reader_;
  Ticket ticket_;
};

}  // namespace

std::optional<Ticket> ticket_of(const log::Event& event) {
  if (const auto* gain = std::get_if<log::Gain>(&event.what)) return gain->ticket;
  if (const auto* loss = std::get_if<log::Loss>(&event.what)) return loss->ticket;
  return std::nullopt;
}

Result<TotalOrder> TotalOrder::read(const log::Recording& recording) {
  std::vector<TicketWalk> walks;
  for (uint32_t i = 0; i < recording.vcpus(); ++i) {
    TRY_ASSIGN(auto reader, recording.open_log(VcpuId(i)));
    TRY(walks.emplace_back(VcpuId(i), std::move(reader)).advance());
  }
  std::vector<uint8_t> owners;
  for (;;) {
    const auto lowest = std::ranges::min_element(walks, {}, &TicketWalk::ticket);
    if (lowest->at_end()) break;
    if (lowest->ticket().raw <= owners.size())
      return fail(ErrorCode::kDamaged, "ticket {} is in two places of the logs", lowest->ticket().raw);
    if (lowest->ticket().raw != owners.size() + 1) {
      if (!recording.final().has_value()) break;
      return fail(ErrorCode::kDamaged, "the logs have ticket {}, but none has ticket {}",
                  lowest->ticket().raw, owners.size() + 1);
    }
    owners.push_back(static_cast<uint8_t>(lowest->vcpu().raw));
    TRY(lowest->advance());
  }
  return TotalOrder(std::move(owners));
}

}  // namespace reprise::replay
