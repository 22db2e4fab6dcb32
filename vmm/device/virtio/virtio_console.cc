#include "vmm/device/virtio/virtio_console.h"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace reprise::vmm {

static_assert(std::has_unique_object_representations_v<VirtioConsoleState>, "digested as bytes");

void VirtioConsole::receive(uint8_t byte) {
  if (state_.count >= state_.received.size()) return;
  state_.received[(state_.first + state_.count) % state_.received.size()] = byte;
  ++state_.count;
}

Status VirtioConsole::serve(uint32_t index, Virtqueue& queue, DeviceContext& /*context*/) {
  if (index == kTransmitQueue) send(queue);
  if (index == kReceiveQueue) hand_over(queue);
  return {};
}

void VirtioConsole::send(Virtqueue& queue) {
  while (const auto chain = queue.next()) {
    uint64_t left = kMaxSent;
    for (const auto& buffer : chain->readable) {
      const auto sent = buffer.first(std::min<uint64_t>(left, buffer.size()));
      left -= sent.size();
      if (sink_) std::ranges::for_each(sent, sink_);
    }
    queue.finish(*chain, 0);
  }
}

// Buffers wait at the driver's until there is something for them.
void VirtioConsole::hand_over(Virtqueue& queue) {
  while (state_.count > 0) {
    const auto chain = queue.next();
    if (!chain.has_value()) return;
    std::vector<uint8_t> bytes;
    for (uint16_t i = 0; i < state_.count; ++i)
      bytes.push_back(state_.received[(state_.first + i) % state_.received.size()]);
    const uint64_t taken = scatter(bytes, chain->writable);
    state_.first = static_cast<uint16_t>((state_.first + taken) % state_.received.size());
    state_.count = static_cast<uint16_t>(state_.count - taken);
    queue.finish(*chain, static_cast<uint32_t>(taken));
  }
}

}  // namespace reprise::vmm
