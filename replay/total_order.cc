#include "replay/total_order.h"

#include <algorithm>

namespace reprise::replay {
namespace {

constexpr VcpuId kNobody{~0u};

}  // namespace

std::optional<Ticket> ticket_of(const log::Event& event) {
  if (const auto* gain = std::get_if<log::Gain>(&event.what)) return gain->ticket;
  if (const auto* loss = std::get_if<log::Loss>(&event.what)) return loss->ticket;
  return std::nullopt;
}

Result<TotalOrder> TotalOrder::read(const log::Recording& recording) {
  std::vector<VcpuId> owners;
  for (uint32_t i = 0; i < recording.vcpus(); ++i) {
    TRY_ASSIGN(auto reader, recording.open_log(VcpuId(i)));
    for (;;) {
      TRY_ASSIGN(const auto event, reader.next());
      if (!event.has_value()) break;
      const auto ticket = ticket_of(*event);
      if (!ticket.has_value()) continue;
      // A whole log has some hundred bytes for a hundred tickets; what is far off is no ticket.
      if (ticket->raw == 0 || ticket->raw > (1ull << 32))
        return fail(ErrorCode::kDamaged, "vCPU {}'s log has a ticket {}", i, ticket->raw);
      if (owners.size() < ticket->raw) owners.resize(ticket->raw, kNobody);
      VcpuId& owner = owners[ticket->raw - 1];
      if (owner != kNobody)
        return fail(ErrorCode::kDamaged, "ticket {} is in two places of the logs", ticket->raw);
      owner = VcpuId(i);
    }
  }
  owners.erase(std::find(owners.begin(), owners.end(), kNobody), owners.end());
  return TotalOrder(std::move(owners));
}

}  // namespace reprise::replay
