// The guest's own page tables, walked in software: which guest-physical page a linear address means, and
// which page-table pages the processor touches to find out.
//
// A view that lacks a page-table page faults just as one that lacks the data page, so access decoding
// (x86/access.h) needs both. Nothing here changes guest memory: a missing accessed or dirty bit is reported
// as a need for Right::kWrite on the table, and the processor sets it once the view allows.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/page_right.h"
#include "base/units.h"

namespace reprise::x86 {

// What the caller lets access decoding see of guest RAM.
// Threads: as the implementation says; decoding calls it from the calling thread only.
class PhysicalReader {
 public:
  virtual ~PhysicalReader() = default;
  // Copies out.size() bytes from `gpa`; the range never crosses a page. False, with `out` in any state, when
  // the range is not RAM or the caller may not look at it now (its view has no right to the page).
  [[nodiscard]] virtual bool read(Gpa gpa, std::span<uint8_t> out) const = 0;
};

// The registers that decide how linear addresses are translated.
struct PagingState {
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  bool alignment_check = false;  // RFLAGS.AC: with CR4.SMAP, lets the supervisor touch user pages
};

// Source: Intel SDM vol. 3, 2.5 (CR0, CR4) and 2.2.1 (EFER).
inline constexpr uint64_t kCr0ProtectionEnable = 1ull << 0;
inline constexpr uint64_t kCr0WriteProtect = 1ull << 16;
inline constexpr uint64_t kCr0Paging = 1ull << 31;
inline constexpr uint64_t kCr4PageSizeExtensions = 1ull << 4;
inline constexpr uint64_t kCr4PhysicalAddressExtension = 1ull << 5;
inline constexpr uint64_t kCr4FiveLevels = 1ull << 12;
inline constexpr uint64_t kCr4Smep = 1ull << 20;
inline constexpr uint64_t kCr4Smap = 1ull << 21;
inline constexpr uint64_t kEferLongModeActive = 1ull << 10;
inline constexpr uint64_t kEferNoExecute = 1ull << 11;

// What is done at the linear address. An access by the processor itself to a descriptor table or a TSS is a
// supervisor access whatever the privilege level.
struct LinearAccess {
  bool write = false;
  bool fetch = false;
  bool user = false;             // at CPL 3
  bool implicit_system = false;  // descriptor table or TSS: SMAP is not lifted by RFLAGS.AC
};

enum class WalkOutcome : uint8_t {
  kMapped,      // `gpa` holds the translation
  kPageFault,   // the guest's tables do not allow the access: it raises #PF
  kUnreadable,  // the last entry of `tables` could not be read: acquire it, then walk again
};

// The result of one walk. `tables` lists the page-table pages in the order of the walk, `entries` the entries
// in them; a table that refers to itself is listed as often as it is visited.
struct PageWalk {
  static constexpr size_t kMaxLevels = 5;
  WalkOutcome outcome = WalkOutcome::kMapped;
  Gpa gpa;
  uint8_t table_count = 0;
  std::array<PageRight, kMaxLevels> storage;
  std::array<Gpa, kMaxLevels> entry_storage;
  [[nodiscard]] std::span<const PageRight> tables() const { return {storage.data(), table_count}; }
  [[nodiscard]] std::span<const Gpa> entries() const { return {entry_storage.data(), table_count}; }
};

// Translates `address`. With paging off the answer is the address itself.
//
// Modes: none, 32-bit (with 4 MiB pages), PAE, 4-level and 5-level, chosen as the processor does. Permissions
// are those of R/W, U/S, NX, CR0.WP, SMEP and SMAP. Not looked at: protection keys, shadow-stack pages, and
// reserved bits other than PS where no large page exists (a table with such bits set counts as mapped).
//
// A table needs Right::kWrite when the walk has to set its accessed bit, or the dirty bit of the last entry
// for a write, and always if `walk_writes`: AMD's nested paging treats every read of the walker as a write.
// Cost: one read of at most 8 bytes for each level; no allocation. It visits at most 5 tables whatever they
// hold. Source: Intel SDM vol. 3, 4.3 to 4.8; AMD APM vol. 2, 5.3 and 15.25.5 (walks are writes).
[[nodiscard]] PageWalk walk_page(const PagingState& state, const PhysicalReader& reader, Gva address,
                                 LinearAccess access, bool walk_writes);

// A page-table page that CR3 leads to and that `foreign` says yes to, if there is one. For hosts where a vCPU
// can trust its page tables only if no other vCPU writes them. Tables are followed through pages that are not
// foreign.
//
// Cost: reads each table page above the last level once; on a guest's four-level tables for some GiB, 1 to 5
// pages. A hostile guest cannot make it visit a page more than once a level.
[[nodiscard]] std::optional<PageNumber> find_table(const PagingState& state, const PhysicalReader& reader,
                                                   const std::function<bool(PageNumber)>& foreign);

// What user mode can have changed: calls `entry` with each entry of the tables of the lower half that is
// there for user mode, and `written` with each page that all entries to it let user mode write and the last
// calls dirty, in an order that follows from these. `bytes`: 4 KiB, 2 MiB or 1 GiB. Requires: 64-bit mode.
//
// Cost: reads each table once for each level and right. A hostile guest cannot make it visit one more often,
// nor a page of one size.
void visit_user_memory(const PagingState& state, const PhysicalReader& reader,
                       const std::function<void(uint64_t entry)>& entry,
                       const std::function<void(Gpa start, uint64_t bytes)>& written);

}  // namespace reprise::x86
