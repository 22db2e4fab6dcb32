// What a vCPU is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "base/units.h"
#include "ept/scheduler.h"
#include "vmm/clock/positioner.h"
#include "vmm/device/board.h"
#include "vmm/device/io_map.h"
#include "vmm/device/irq/local_apic.h"
#include "vmm/guest/guest_kernel.h"
#include "vmm/guest_memory.h"
#include "vmm/journal.h"
#include "vmm/kvm/kvm.h"
#include "vmm/register_digest.h"
#include "x86/access.h"

namespace reprise::vmm {

// All of it outlives the vCPU and is used by its thread alone.
struct VcpuParts {
  VcpuId id;
  KvmVcpu& kvm;
  ViewMemory& memory;
  Positioner& positioner;
  Journal& journal;
  LocalApic& apic;
  const IoMap& io;
  const ept::Scheduler& scheduler;
  Board& board;
  const DmaMemory& device_memory;
  std::optional<Gpa> trap{};  // the page that a safepoint touches to stop
  PageNumber first_token{};   // tokens follow RAM: the turn, then the shared devices
  x86::AccessOptions access{};
  DigestScope digest_scope = DigestScope::kAll;
  const GuestKernel* kernel = nullptr;  // null: the guest's code is as it was built
  // Where page tables must lie, if the host does not show this vCPU what others write into them.
  std::optional<PrivateRange> own_tables{};
  // At every k-th stop, k being `digest_every`, the whole machine is compared by what this returns; 0: never.
  // Needs the turn: who has it is the only one that changes memory and devices.
  uint64_t digest_every = 0;
  std::function<Result<uint64_t>()> digest{};
};

// Token numbers, counted from VcpuParts::first_token.
inline constexpr uint64_t kTurnToken = 0;
inline constexpr uint64_t kFirstDeviceToken = 1;

}  // namespace reprise::vmm
