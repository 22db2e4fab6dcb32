// What a PVH loader hands over. Source: Xen, include/public/arch-x86/hvm/start_info.h.
#pragma once

#include <stdint.h>

namespace reprise::guest::kernel {

struct PvhStartInfo {
  uint32_t magic;  // kPvhMagic
  uint32_t version;
  uint32_t flags;
  uint32_t modules;
  uint64_t module_list;
  uint64_t command_line;
  uint64_t rsdp;
  // From version 1 on:
  uint64_t memory_map;
  uint32_t memory_map_entries;
  uint32_t reserved;
};

struct PvhMemory {
  uint64_t start;
  uint64_t size;
  uint32_t type;
  uint32_t reserved;
};

inline constexpr uint32_t kPvhMagic = 0x336ec578;
inline constexpr uint32_t kPvhRam = 1;

}  // namespace reprise::guest::kernel
