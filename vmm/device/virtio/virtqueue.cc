#include "vmm/device/virtio/virtqueue.h"

#include <algorithm>

namespace reprise::vmm {
namespace {

// Source: 2.7.5 (descriptor table), 2.7.6 (available ring), 2.7.8 (used ring).
constexpr uint16_t kNext = 1;
constexpr uint16_t kDeviceWrites = 2;
constexpr uint16_t kIndirect = 4;
constexpr uint16_t kAvailNoInterrupt = 1;
constexpr uint64_t kDescriptorBytes = sizeof(VirtqueueDescriptor);
constexpr uint64_t kIndexOffset = 2;  // in either ring
constexpr uint64_t kRingOffset = 4;
constexpr uint64_t kUsedElementBytes = 8;

// The head of the request at this free-running position of the available ring. Requires: state.size is not 0.
std::optional<uint16_t> load_head(const DmaMemory& memory, const VirtqueueState& state, uint16_t position) {
  return memory.load<uint16_t>(Gpa(state.driver_area + kRingOffset + 2ull * (position % state.size)));
}

// Follows a chain from descriptor `first` of a table on: `visit` gets each buffer, `enter` each indirect
// table before it is read; either may end it by false. True: to its end. False also for what the driver must
// not have done. Source: 2.7.5.3. An indirect table's own descriptors may not be indirect; the device ignores
// the table's write flag.
template <typename Enter, typename Visit>
bool follow_chain(const DmaMemory& memory, Gpa table, uint16_t size, uint16_t first, bool indirect_allowed,
                  const Enter& enter, const Visit& visit) {
  uint16_t index = first;
  // Ends after `size` descriptors, so a chain that bites its tail is one that is too long.
  for (uint16_t steps = 0; steps < size && index < size; ++steps) {
    const auto descriptor = memory.load<VirtqueueDescriptor>(table + kDescriptorBytes * index);
    if (!descriptor.has_value()) return false;
    const bool is_last = (descriptor->flags & kNext) == 0;
    if ((descriptor->flags & kIndirect) != 0) {
      const uint32_t entries = descriptor->length / kDescriptorBytes;
      const bool is_table =
          descriptor->length % kDescriptorBytes == 0 && entries != 0 && entries <= kMaxQueueSize;
      return indirect_allowed && is_last && is_table && enter(*descriptor) &&
             follow_chain(memory, Gpa(descriptor->address), static_cast<uint16_t>(entries), 0, false, enter,
                          visit);
    }
    if (!visit(*descriptor)) return false;
    if (is_last) return true;
    index = descriptor->next;
  }
  return false;
}

DmaMemory::Use use_of(const VirtqueueDescriptor& descriptor) {
  return (descriptor.flags & kDeviceWrites) != 0 ? DmaMemory::Use::kWrite : DmaMemory::Use::kRead;
}

// What the requests of a queue need of guest memory. What the driver must not have done is left to Virtqueue.
class OwnedRanges {
 public:
  explicit OwnedRanges(const DeviceContext& context) : context_(context) {}

  void follow(const VirtqueueState& state, bool indirect) {
    add(Gpa(state.driver_area), kRingOffset + 2ull * state.size, Use::kRead);
    add(Gpa(state.device_area), kRingOffset + kUsedElementBytes * state.size, Use::kWrite);
    add(Gpa(state.descriptors), kDescriptorBytes * state.size, Use::kRead);
    if (!owned_ || state.size == 0) return;
    const DmaMemory& memory = context_.memory();
    const auto index = memory.load<uint16_t>(Gpa(state.driver_area + kIndexOffset));
    const auto count = static_cast<uint16_t>(index.value_or(state.next_available) - state.next_available);
    const auto enter = [&](const VirtqueueDescriptor& indirect_table) {
      return add(Gpa(indirect_table.address), indirect_table.length, Use::kRead);
    };
    const auto visit = [&](const VirtqueueDescriptor& buffer) {
      add(Gpa(buffer.address), buffer.length, use_of(buffer));
      return true;
    };
    for (uint16_t i = 0; i < std::min(count, state.size); ++i) {
      const auto head = load_head(memory, state, static_cast<uint16_t>(state.next_available + i));
      if (head.has_value())
        (void)follow_chain(memory, Gpa(state.descriptors), state.size, *head, indirect, enter, visit);
    }
  }
  [[nodiscard]] bool are_owned() const { return owned_; }
  [[nodiscard]] std::span<const DmaRange> list() const { return list_; }

 private:
  using Use = DmaMemory::Use;
  // Whether it is owned already.
  bool add(Gpa start, uint64_t bytes, Use use) {
    const DmaRange range{start, bytes, use};
    list_.push_back(range);
    const bool owned = context_.owns(range);
    owned_ &= owned;
    return owned;
  }
  const DeviceContext& context_;
  std::vector<DmaRange> list_;
  bool owned_ = true;
};

bool has_valid_size(const VirtqueueState& state, uint16_t max_size) {
  return state.size != 0 && state.size <= max_size && (state.size & (state.size - 1)) == 0;
}

}  // namespace

uint64_t total_bytes(std::span<const std::span<uint8_t>> buffers) {
  uint64_t total = 0;
  for (const auto& buffer : buffers) total += buffer.size();
  return total;
}

uint64_t gather(std::span<const std::span<uint8_t>> from, std::span<uint8_t> to) {
  uint64_t done = 0;
  for (const auto& buffer : from) {
    const uint64_t bytes = std::min<uint64_t>(buffer.size(), to.size() - done);
    std::copy_n(buffer.begin(), bytes, to.begin() + static_cast<ptrdiff_t>(done));
    done += bytes;
  }
  return done;
}

uint64_t scatter(std::span<const uint8_t> from, std::span<const std::span<uint8_t>> to) {
  uint64_t done = 0;
  for (const auto& buffer : to) {
    const uint64_t bytes = std::min<uint64_t>(buffer.size(), from.size() - done);
    std::copy_n(from.begin() + static_cast<ptrdiff_t>(done), bytes, buffer.begin());
    done += bytes;
  }
  return done;
}

std::vector<std::span<uint8_t>> part(std::span<const std::span<uint8_t>> buffers, uint64_t first,
                                     uint64_t bytes) {
  std::vector<std::span<uint8_t>> result;
  for (const auto& buffer : buffers) {
    const uint64_t skipped = std::min<uint64_t>(first, buffer.size());
    const uint64_t taken = std::min<uint64_t>(bytes, buffer.size() - skipped);
    if (taken > 0) result.push_back(buffer.subspan(skipped, taken));
    first -= skipped;
    bytes -= taken;
  }
  return result;
}

bool Virtqueue::is_valid(const VirtqueueState& state, uint16_t max_size, const DmaMemory& memory) {
  if (!has_valid_size(state, max_size)) return false;
  if (state.descriptors % kDescriptorBytes != 0 || state.driver_area % 2 != 0 || state.device_area % 4 != 0)
    return false;
  return memory.find(Gpa(state.descriptors), kDescriptorBytes * state.size, DmaMemory::Use::kRead)
             .has_value() &&
         memory.find(Gpa(state.driver_area), kRingOffset + 2ull * state.size, DmaMemory::Use::kRead)
             .has_value() &&
         memory
             .find(Gpa(state.device_area), kRingOffset + kUsedElementBytes * state.size,
                   DmaMemory::Use::kRead)
             .has_value();
}

// Follows the requests as far as the vCPU owns what says where they lead: what others may be changing is not
// looked at. What it then still lacks is acquired together with the rest, and the requests are followed anew.
Result<bool> Virtqueue::acquire(const VirtqueueState& state, DeviceContext& context, bool indirect) {
  if (context.owns_all_memory()) return true;
  for (;;) {
    OwnedRanges ranges(context);
    ranges.follow(state, indirect);
    if (ranges.are_owned()) return true;
    TRY_ASSIGN(const bool granted, context.acquire(ranges.list()));
    if (!granted) return false;
  }
}

Virtqueue::Virtqueue(VirtqueueState& state, const DmaMemory& memory, bool indirect)
    : state_(state), memory_(memory), indirect_(indirect) {
  const auto index = memory_.load<uint16_t>(Gpa(state_.driver_area + kIndexOffset));
  left_ = static_cast<uint16_t>(index.value_or(state_.next_available) - state_.next_available);
  // More than the ring holds: the index went back, or came from nowhere. A state that came from a file may be
  // one that no driver can have set up.
  if (!index.has_value() || left_ > state_.size || !has_valid_size(state_, kMaxQueueSize)) broken_ = true;
}

std::optional<Chain> Virtqueue::next() {
  if (broken_ || left_ == 0) return std::nullopt;
  const auto head = load_head(memory_, state_, state_.next_available);
  auto chain = head.has_value() ? follow(*head) : std::nullopt;
  if (!chain.has_value()) {
    broken_ = true;
    return std::nullopt;
  }
  ++state_.next_available;
  --left_;
  return chain;
}

std::optional<Chain> Virtqueue::follow(uint16_t head) {
  Chain chain;
  chain.head = head;
  const bool is_whole = follow_chain(
      memory_, Gpa(state_.descriptors), state_.size, head, indirect_, [](const auto&) { return true; },
      [&](const VirtqueueDescriptor& buffer) { return add(buffer, chain); });
  return is_whole ? std::optional(std::move(chain)) : std::nullopt;
}

bool Virtqueue::add(const VirtqueueDescriptor& descriptor, Chain& chain) const {
  const auto buffer = memory_.find(Gpa(descriptor.address), descriptor.length, use_of(descriptor));
  const bool writes = use_of(descriptor) == DmaMemory::Use::kWrite;
  // What is written comes after all that is read. Source: 2.7.4.2.
  if (!buffer.has_value() || (!writes && !chain.writable.empty())) return false;
  if (!buffer->empty()) (writes ? chain.writable : chain.readable).push_back(*buffer);
  return true;
}

void Virtqueue::finish(const Chain& chain, uint32_t written) {
  struct Used {
    uint32_t head;
    uint32_t written;
  };
  const uint64_t slot = state_.next_used % state_.size;
  ++state_.next_used;
  broken_ |= !memory_.store(Gpa(state_.device_area + kRingOffset + kUsedElementBytes * slot),
                            Used{chain.head, written});
  broken_ |= !memory_.store(Gpa(state_.device_area + kIndexOffset), state_.next_used);
  finished_some_ = true;
}

bool Virtqueue::wants_interrupt() const {
  return finished_some_ &&
         (memory_.load<uint16_t>(Gpa(state_.driver_area)).value_or(0) & kAvailNoInterrupt) == 0;
}

}  // namespace reprise::vmm
