#include "vmm/device/virtio/virtio_mmio.h"

#include <type_traits>

#include "vmm/device/virtio/virtio_registers.h"

namespace reprise::vmm {
namespace {

static_assert(std::has_unique_object_representations_v<VirtioMmioState>, "digested as bytes");

constexpr uint32_t low(uint64_t value) {
  return static_cast<uint32_t>(value);
}
constexpr uint32_t high(uint64_t value) {
  return static_cast<uint32_t>(value >> 32);
}
void set_low(uint64_t& field, uint32_t value) {
  field = (field & ~0xffffffffull) | value;
}
void set_high(uint64_t& field, uint32_t value) {
  field = (field & 0xffffffffull) | uint64_t{value} << 32;
}

}  // namespace

uint64_t VirtioMmio::offered() const {
  return kFeatureVersion1 | kFeatureIndirect | device_.features();
}

Result<uint64_t> VirtioMmio::read(uint64_t offset, unsigned bytes, DeviceContext& /*context*/) {
  if (offset >= kVirtioConfig) return read_config(offset - kVirtioConfig, bytes);
  return bytes == 4 ? read_register(offset) : uint64_t{0};
}

uint64_t VirtioMmio::read_config(uint64_t offset, unsigned bytes) const {
  const auto config = device_.config();
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes && i < 8 && offset + i < config.size(); ++i)
    value |= std::to_integer<uint64_t>(config[offset + i]) << (8 * i);
  return value;
}

uint32_t VirtioMmio::read_register(uint64_t offset) const {
  using enum VirtioRegister;
  const auto reg = static_cast<VirtioRegister>(offset);
  if (reg >= kSharedMemoryLengthLow && reg <= kSharedMemoryBaseHigh) return ~0u;
  switch (reg) {
    case kMagic:
      return kVirtioMagic;
    case kVersion:
      return kVirtioVersion;
    case kDeviceId:
      return device_.id();
    case kVendorId:
      return kVirtioVendor;
    case kDeviceFeatures:
      if (state_.device_features_select > 1) return 0;
      return state_.device_features_select == 0 ? low(offered()) : high(offered());
    case kQueueSizeMax:
      return has_queue(state_.queue_select) ? kMaxQueueSize : 0;
    case kQueueReady:
      return has_queue(state_.queue_select) ? state_.queues[state_.queue_select].ready : 0;
    case kInterruptStatus:
      return state_.interrupt_status;
    case kStatus:
      return state_.status;
    default:
      return 0;  // ConfigGeneration among them: no configuration ever changes
  }
}

Result<Effects> VirtioMmio::write(uint64_t offset, unsigned bytes, uint64_t value, DeviceContext& context) {
  using enum VirtioRegister;
  if (bytes != 4) return Effects{};
  const auto word = static_cast<uint32_t>(value);
  switch (static_cast<VirtioRegister>(offset)) {
    case kDeviceFeaturesSelect:
      state_.device_features_select = word;
      break;
    case kDriverFeatures:
      write_features(word);
      break;
    case kDriverFeaturesSelect:
      state_.driver_features_select = word;
      break;
    case kQueueSelect:
      state_.queue_select = word;
      break;
    case kQueueReady:
      return write_ready(word, context.memory());
    case kQueueNotify:
      return serve(word, context);
    case kInterruptAcknowledge:
      state_.interrupt_status &= ~word;
      break;
    case kStatus:
      write_status(word);
      break;
    default:
      write_queue_register(offset, word);
      break;
  }
  return Effects{};
}

// Once the features are agreed upon they stay. Source: 2.2, 3.1.1.
void VirtioMmio::write_features(uint32_t value) {
  if ((state_.status & kStatusFeaturesOk) != 0 || state_.driver_features_select > 1) return;
  if (state_.driver_features_select == 0)
    set_low(state_.driver_features, value);
  else
    set_high(state_.driver_features, value);
}

// A driver that accepts what was not offered, or speaks the legacy interface, finds that FEATURES_OK did not
// stay. Source: 3.1.1, 6.1.
void VirtioMmio::write_status(uint32_t value) {
  if (value == 0) {
    state_ = {};
    device_.reset();
    return;
  }
  constexpr uint32_t kDrivers =
      kStatusAcknowledge | kStatusDriver | kStatusDriverOk | kStatusFeaturesOk | kStatusFailed;
  const bool acceptable =
      (state_.driver_features & ~offered()) == 0 && (state_.driver_features & kFeatureVersion1) != 0;
  if (!acceptable) value &= ~(kStatusFeaturesOk | kStatusDriverOk);
  state_.status |= value & kDrivers;
}

// A queue that is in use does not change. Source: 4.2.2.2.
void VirtioMmio::write_queue_register(uint64_t offset, uint32_t value) {
  using enum VirtioRegister;
  if (!has_queue(state_.queue_select) || state_.queues[state_.queue_select].ready != 0) return;
  VirtqueueState& queue = state_.queues[state_.queue_select];
  switch (static_cast<VirtioRegister>(offset)) {
    // What does not fit into 16 bits is not valid, whatever is cut off.
    case kQueueSize:
      queue.size = value <= kMaxQueueSize ? static_cast<uint16_t>(value) : uint16_t{0};
      break;
    case kDescriptorsLow:
      set_low(queue.descriptors, value);
      break;
    case kDescriptorsHigh:
      set_high(queue.descriptors, value);
      break;
    case kDriverAreaLow:
      set_low(queue.driver_area, value);
      break;
    case kDriverAreaHigh:
      set_high(queue.driver_area, value);
      break;
    case kDeviceAreaLow:
      set_low(queue.device_area, value);
      break;
    case kDeviceAreaHigh:
      set_high(queue.device_area, value);
      break;
    default:
      break;
  }
}

Effects VirtioMmio::write_ready(uint32_t value, const DmaMemory& memory) {
  if (!has_queue(state_.queue_select)) return {};
  VirtqueueState& queue = state_.queues[state_.queue_select];
  if (value != 1) {
    queue = {};
    return {};
  }
  if (queue.ready != 0) return {};
  if (!Virtqueue::is_valid(queue, kMaxQueueSize, memory)) return need_reset();
  queue.ready = 1;
  return {};
}

bool VirtioMmio::can_serve(uint32_t index) const {
  const bool runs = (state_.status & (kStatusDriverOk | kStatusNeedsReset)) == kStatusDriverOk;
  return runs && has_queue(index) && state_.queues[index].ready != 0;
}

bool VirtioMmio::uses_indirect() const {
  return (state_.driver_features & kFeatureIndirect) != 0;
}

Result<bool> VirtioMmio::acquire(uint32_t index, DeviceContext& context) const {
  if (!can_serve(index)) return true;
  return Virtqueue::acquire(state_.queues[index], context, uses_indirect());
}

Result<Effects> VirtioMmio::serve(uint32_t index, DeviceContext& context) {
  if (!can_serve(index)) return Effects{};
  TRY_ASSIGN(const bool owned, acquire(index, context));
  if (!owned) return Effects{};
  Virtqueue queue(state_.queues[index], context.memory(), uses_indirect());
  TRY(device_.serve(index, queue, context));
  if (queue.broken()) return need_reset();
  return queue.wants_interrupt() ? interrupt(kInterruptUsedBuffer) : Effects{};
}

Effects VirtioMmio::interrupt(uint32_t why) {
  state_.interrupt_status |= why;
  return {RaiseLine{line_}};
}

// Source: 2.1.2: the driver is told by a configuration change, if it is there already.
Effects VirtioMmio::need_reset() {
  state_.status |= kStatusNeedsReset;
  return (state_.status & kStatusDriverOk) != 0 ? interrupt(kInterruptConfigChange) : Effects{};
}

}  // namespace reprise::vmm
