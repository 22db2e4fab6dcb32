// Numbers of the virtio-mmio transport. Source: VIRTIO 1.2, sections 2.1, 4.2.2 and 6.
#pragma once

#include <cstdint>

namespace reprise::vmm {

// Offsets of registers, 32 bits each. Source: 4.2.2, table 4.1.
enum class VirtioRegister : uint64_t {
  kMagic = 0x000,
  kVersion = 0x004,
  kDeviceId = 0x008,
  kVendorId = 0x00c,
  kDeviceFeatures = 0x010,
  kDeviceFeaturesSelect = 0x014,
  kDriverFeatures = 0x020,
  kDriverFeaturesSelect = 0x024,
  kQueueSelect = 0x030,
  kQueueSizeMax = 0x034,
  kQueueSize = 0x038,
  kQueueReady = 0x044,
  kQueueNotify = 0x050,
  kInterruptStatus = 0x060,
  kInterruptAcknowledge = 0x064,
  kStatus = 0x070,
  kDescriptorsLow = 0x080,
  kDescriptorsHigh = 0x084,
  kDriverAreaLow = 0x090,
  kDriverAreaHigh = 0x094,
  kDeviceAreaLow = 0x0a0,
  kDeviceAreaHigh = 0x0a4,
  kSharedMemoryLengthLow = 0x0b0,  // this and the next three: all ones, there is no shared memory
  kSharedMemoryBaseHigh = 0x0bc,
  kConfigGeneration = 0x0fc,
};
inline constexpr uint64_t kVirtioConfig = 0x100;  // the device-specific configuration

inline constexpr uint32_t kVirtioMagic = 0x74726976;   // "virt"
inline constexpr uint32_t kVirtioVersion = 2;          // not the legacy interface
inline constexpr uint32_t kVirtioVendor = 0x52505253;  // "SRPR"; nobody looks

// The driver's progress. Source: 2.1.
inline constexpr uint32_t kStatusAcknowledge = 1;
inline constexpr uint32_t kStatusDriver = 2;
inline constexpr uint32_t kStatusDriverOk = 4;
inline constexpr uint32_t kStatusFeaturesOk = 8;
inline constexpr uint32_t kStatusNeedsReset = 64;
inline constexpr uint32_t kStatusFailed = 128;

// Why there was an interrupt. Source: 4.2.2.
inline constexpr uint32_t kInterruptUsedBuffer = 1;
inline constexpr uint32_t kInterruptConfigChange = 2;

// Feature bits of every device. Source: 6.
inline constexpr uint64_t kFeatureIndirect = 1ull << 28;
inline constexpr uint64_t kFeatureVersion1 = 1ull << 32;

}  // namespace reprise::vmm
