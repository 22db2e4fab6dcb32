// From assembler to the first instruction at CPL 3, on every CPU.
#include "kernel/boot_information.h"
#include "kernel/fw_cfg.h"
#include "kernel/hpet.h"
#include "kernel/local_apic.h"
#include "kernel/memory.h"
#include "kernel/private_image.h"
#include "kernel/pvh.h"
#include "kernel/serial_console.h"
#include "kernel/threads.h"

extern "C" {
extern const uint8_t trampoline_start[], trampoline_end[];
[[noreturn]] void start_thread(reprise::guest::ThreadFrame* frame);
void user_start();

reprise::guest::BootInformation boot_information;
}

namespace reprise::guest::kernel {
namespace {

// RAM from the image up, as far as the memory map says and below the hole for devices.
uint64_t find_ram_end(const PvhStartInfo& info) {
  constexpr uint64_t kAssumed = 32 << 20;  // version 0 of PVH has no memory map
  constexpr uint64_t kDeviceHole = 0xc0000000;
  if (info.version < 1) return kAssumed;
  const auto* map = reinterpret_cast<const PvhMemory*>(info.memory_map);
  for (uint32_t i = 0; i < info.memory_map_entries; ++i) {
    const uint64_t end = map[i].start + map[i].size;
    if (map[i].type == kPvhRam && map[i].start <= IMAGE_START && IMAGE_START < end)
      return end < kDeviceHole ? end : kDeviceHole;
  }
  return kAssumed;
}

// What is done once for the machine.
void start_machine(const PvhStartInfo& info) {
  constexpr uint16_t kMasterMask = 0x21, kSlaveMask = 0xa1;
  out8(kMasterMask, 0xff);  // the 8259 pair: nothing comes from there
  out8(kSlaveMask, 0xff);
  start_console();
  start_hpet();
  memcpy(reinterpret_cast<void*>(TRAMPOLINE_PAGE), trampoline_start, trampoline_end - trampoline_start);

  boot_information.ram_end = find_ram_end(info);
  // All of the buffer, whatever the string's length: one instruction instead of a search for the end.
  if (info.command_line)
    memcpy(boot_information.command_line, reinterpret_cast<const char*>(info.command_line),
           sizeof(boot_information.command_line) - 1);
  const uint64_t told = private_image.clock.vcpu_count;
  boot_information.cpus = told ? static_cast<uint32_t>(told) : fw_cfg_cpus();
}

}  // namespace

// `info` is null on application processors.
extern "C" [[noreturn]] void kernel_start(uint32_t cpu, const PvhStartInfo* info) {
  asm volatile("ltr %w0" ::"r"(FIRST_TSS + 16 * cpu));
  enable_local_apic();
  if (info) start_machine(*info);
  ThreadFrame frame;
  prepare_thread(frame, cpu, 0, reinterpret_cast<uint64_t>(&user_start));
  start_thread(&frame);
}

}  // namespace reprise::guest::kernel
