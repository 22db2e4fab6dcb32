// QEMU's configuration device, asked for one thing. Source: QEMU, docs/specs/fw_cfg.rst.
#pragma once

#include <stdint.h>

#include "kernel/port_io.h"

namespace reprise::guest::kernel {

// The number of CPUs, 0 if there is no such device.
inline uint32_t fw_cfg_cpus() {
  constexpr uint16_t kSelector = 0x510, kData = 0x511;
  constexpr uint16_t kSignature = 0, kNumberOfCpus = 5;
  out16(kSelector, kSignature);
  uint32_t signature = 0;
  for (int i = 0; i < 4; ++i) signature = signature << 8 | in8(kData);
  if (signature != 0x51454d55) return 0;  // "QEMU"
  out16(kSelector, kNumberOfCpus);
  const uint32_t low = in8(kData);
  return low | in8(kData) << 8;
}

}  // namespace reprise::guest::kernel
