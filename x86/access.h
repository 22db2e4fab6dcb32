// Access decoding: which guest-physical pages the instruction at rip touches, and how.
//
// KVM_RUN returns -EFAULT when a vCPU touched a page that its view lacks, but does not say which page. The
// instruction is still at rip with no effect made, so the answer follows from the registers and memory:
// decode it and list every page that it is fetched from, reads, writes, pushes to, and walks through on the
// way. The caller takes all that its view lacks in one step; so an instruction that needs two contended pages
// makes progress, and a read-modify-write does not fault twice.
//
// The answer errs upwards: it never omits a page that the instruction needs, and may hold one that it does
// not (the tail of a masked store, the last part of an XSAVE area).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "x86/cpu_state.h"
#include "x86/page_walk.h"

namespace reprise::x86 {

// A range that the instruction itself accesses: an operand, or the stack. Not its code, page tables and
// descriptor tables, nor what the delivery of an exception pushes. Of a repeated string instruction: its
// first element. Masked-off parts count.
struct DataTouch {
  Gva linear;
  uint64_t bytes = 0;
  bool reads = false;
  bool writes = false;
  // The first of several elements that the instruction goes through, up or down.
  bool repeats = false;
  bool downwards = false;
};

struct AccessOptions {
  // The processor's page walker needs write access to page tables: AMD nested paging, and Intel EPT with
  // accessed/dirty bits (kvm_intel.eptad=1).
  bool walk_writes = false;
  // Size of the area that XSAVE and its family may touch, in bytes: CPUID.(EAX=0DH,ECX=0).EBX of the guest.
  uint32_t xsave_bytes = 2696;
  // How many pages beyond the first element's a repeated string instruction may ask for in one step, at most
  // kMaxStringPages. More saves faults on long copies, and takes pages that the guest may not come to use.
  uint32_t extra_string_pages = 0;
  // Where to add them, for who needs to know more than pages; may be null.
  std::vector<DataTouch>* touches = nullptr;
};
inline constexpr uint32_t kMaxStringPages = 8;

// Exception vectors that decoding itself can foresee. Source: Intel SDM vol. 3, table 6-1.
inline constexpr uint8_t kVectorInvalidOpcode = 6;
inline constexpr uint8_t kVectorStackFault = 12;
inline constexpr uint8_t kVectorGeneralProtection = 13;
inline constexpr uint8_t kVectorPageFault = 14;

// The pages of one step, in page order, each once with the strongest right it needs.
// Pages outside RAM (memory-mapped I/O) are listed too; the caller knows the size of RAM.
class AccessSet {
 public:
  // Room for the worst instruction: crossing fetch, two crossing operands and a delivery, each with its own
  // chain of page tables.
  static constexpr size_t kCapacity = 96;

  AccessSet() = default;
  AccessSet(const AccessSet& other) { *this = other; }
  AccessSet& operator=(const AccessSet& other);

  [[nodiscard]] std::span<const PageRight> pages() const { return {pages_.data(), size_}; }

  // Adds a page or strengthens its right; drops nothing. False when the set is full.
  bool add(PageRight access);

  // False: something that decides about further pages (code, a page table, a descriptor, a gate) could not be
  // read. It is in the set: acquire the set, then decode again. If the view grants every page of an
  // incomplete set already, the missing page is not RAM, and the guest cannot go on.
  bool complete = true;
  // The exception that the instruction will certainly raise, if decoding can tell; the set then holds what
  // delivering it touches. Data-dependent ones (#DE, a segment limit) are not foreseen: see
  // delivery_access().
  std::optional<uint8_t> exception;
  // With exception == kVectorPageFault, the address that cannot be accessed (CR2).
  Gva fault_address;
  // In bytes, 1 to 15; 0 when the code could not be read or is no instruction.
  uint8_t instruction_length = 0;

  [[nodiscard]] bool raises_page_fault() const { return exception == kVectorPageFault; }

 private:
  size_t size_ = 0;
  std::array<PageRight, kCapacity> pages_;  // the first size_ are valid; only those are copied
};

// The pages that executing the instruction at state.rip touches.
//
// Covers 64-bit, compatibility, protected, virtual-8086 and real mode; explicit, stack, string and
// descriptor-table operands; page walks; and the delivery of exceptions that are certain. A repeated string
// instruction counts as one step for its first element (see AccessOptions::extra_string_pages).
// Segment limits are not checked: an access beyond one is listed though it raises #GP.
// Branch targets are not listed: fetching there is the next instruction.
//
// Errors: kGuest, naming the instruction and rip, for what it cannot follow: gathers and scatters (vector
//     registers are not in CpuState), AMX tile moves, hardware task switches, call gates to an inner level.
// Cost: 0.7 us without paging, 1.0 us with four levels (CPU time of a load or a locked add on a busy 2.5 GHz
//     Xeon), of which Zydis is 0.4 us; no allocation. A fault that asks for it costs 26 us and more.
// Threads: may be called from any thread; touches nothing but its arguments.
// Source: Intel SDM vol. 2 (operation of each instruction), vol. 3, 3 to 6; AMD APM vol. 3.
[[nodiscard]] Result<AccessSet> decode_access(const CpuState& state, const PhysicalReader& reader,
                                              const AccessOptions& options);

// The pages that delivering `vector` to the vCPU touches: the IDT entry, the code (and stack) segment
// descriptor, the TSS where the stack changes, and the stack that is written. For a fault during delivery
// (KVM_GET_VCPU_EVENTS shows the vector), and as what to try when decode_access() finds nothing missing.
// If delivery itself faults in the guest's own tables, the set holds what was touched until then.
// Errors: kGuest for task gates, and for delivery out of virtual-8086 mode.
// Source: Intel SDM vol. 3, 6.12 and 6.14; for real mode 20.1.4.
[[nodiscard]] Result<AccessSet> delivery_access(const CpuState& state, const PhysicalReader& reader,
                                                const AccessOptions& options, uint8_t vector);

}  // namespace reprise::x86
