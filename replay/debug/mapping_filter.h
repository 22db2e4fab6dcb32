// Code for a Linux guest that exits before the kernel changes what user mode can execute at some addresses,
// and not each time that it may change anything: a boot has thousands of other page faults, and patches its
// own code as often in an address space that it switches to for a moment.
//
// Two functions begin with a call of the counter of function entries. That call is made to lead through this
// code. Source: Linux, mm/memory.c, handle_mm_fault(vma, address, ...); arch/x86/mm/tlb.c,
// switch_mm_irqs_off(prev, next, task), where use_temporary_mm() in arch/x86/kernel/alternative.c has no
// `prev` to give.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "vmm/guest/guest_kernel.h"

namespace reprise::replay {

struct MappingFilter {
  // What one page fault may map: a page of 2 MiB, or pages of a file around it, which are fewer. So addresses
  // are near to each other where they are the same shifted by this.
  static constexpr unsigned kNearShift = 21;

  struct Piece {
    Gpa start;
    std::vector<uint8_t> bytes;
  };
  std::vector<Piece> pieces;  // what to write
  std::set<Gpa> halts;        // the HLTs in it; behind each of them it goes on
};

// `near`: addresses in user mode, each shifted right by kNearShift. Nothing: they do not fit into the room.
std::optional<MappingFilter> make_mapping_filter(const vmm::MappingFunctions& functions,
                                                 const std::set<uint64_t>& near);

}  // namespace reprise::replay
