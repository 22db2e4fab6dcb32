// What GDB is told about the machine, in its XML.
#pragma once

#include <span>
#include <string>

#include "replay/gdb/debug_target.h"
#include "replay/gdb/register_map.h"

namespace reprise::replay::gdb {

// target.xml: architecture and registers. Source: "Debugging with GDB" (13), appendix G, Target Descriptions.
[[nodiscard]] std::string describe_registers(const RegisterMap& registers);

// One thread a vCPU, with its name and state. Source: E.14, "Thread List Format".
[[nodiscard]] std::string describe_threads(const DebugTarget& target);

// All that a 64-bit address can reach, as RAM: addresses are the guest's virtual ones, and what its page
// tables map changes. GDB takes what a memory map leaves out for not there. Source: E.16, "Memory Map
// Format".
[[nodiscard]] std::string describe_memory();

// How GDB names the thread of a vCPU: from 1 on, for 0 means any.
[[nodiscard]] constexpr uint64_t thread_of(VcpuId vcpu) {
  return uint64_t{vcpu.raw} + 1;
}

}  // namespace reprise::replay::gdb
