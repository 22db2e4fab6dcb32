#include "x86/page_walk.h"

#include <cstring>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace reprise::x86 {
namespace {

// Bits of an entry, the same in all modes. Source: Intel SDM vol. 3, tables 4-5 to 4-20.
constexpr uint64_t kPresent = 1ull << 0;
constexpr uint64_t kWritable = 1ull << 1;
constexpr uint64_t kUser = 1ull << 2;
constexpr uint64_t kAccessed = 1ull << 5;
constexpr uint64_t kDirty = 1ull << 6;
constexpr uint64_t kLargePage = 1ull << 7;
constexpr uint64_t kNoExecute = 1ull << 63;
constexpr uint64_t kAddressMask = 0x000f'ffff'ffff'f000;  // bits 51:12, the widest physical address

// The shape of the tables in one paging mode.
struct Format {
  int levels;
  int index_bits;  // how many bits of the address each level takes
  int entry_bytes;
  int largest_page_level;  // the highest level (1 = page table) whose entries may map a page
  bool bare_root;          // PAE: the four root entries have neither permissions nor an accessed bit
};

constexpr Format kThirtyTwoBit{2, 10, 4, 2, false};
constexpr Format kThirtyTwoBitSmallOnly{2, 10, 4, 1, false};
constexpr Format kPae{3, 9, 8, 2, true};
constexpr Format kFourLevel{4, 9, 8, 3, false};
constexpr Format kFiveLevel{5, 9, 8, 3, false};

const Format& format_of(const PagingState& state) {
  if ((state.efer & kEferLongModeActive) != 0)
    return (state.cr4 & kCr4FiveLevels) != 0 ? kFiveLevel : kFourLevel;
  if ((state.cr4 & kCr4PhysicalAddressExtension) != 0) return kPae;
  return (state.cr4 & kCr4PageSizeExtensions) != 0 ? kThirtyTwoBit : kThirtyTwoBitSmallOnly;
}

// What all entries so far agree to allow.
struct Permissions {
  bool writable = true;
  bool user = true;
  bool executable = true;
};

bool allowed(const PagingState& state, Permissions page, LinearAccess access) {
  if (access.fetch && !page.executable) return false;
  if (access.user) return page.user && (!access.write || page.writable);
  if (access.write && !page.writable && (state.cr0 & kCr0WriteProtect) != 0) return false;
  if (!page.user) return true;
  if (access.fetch) return (state.cr4 & kCr4Smep) == 0;
  if ((state.cr4 & kCr4Smap) == 0) return true;
  return state.alignment_check && !access.implicit_system;
}

// The physical address that a leaf entry at `level` gives to `address`.
Gpa leaf_address(const Format& format, uint64_t entry, int level, uint64_t address) {
  const int shift = 12 + (level - 1) * format.index_bits;
  const uint64_t offset_mask = (1ull << shift) - 1;
  uint64_t frame = entry & kAddressMask & ~offset_mask;
  // PSE-36: bits 20:13 of a 4 MiB entry are bits 39:32 of the address. Source: Intel SDM vol. 3, table 4-4.
  if (format.entry_bytes == 4 && level == 2) frame |= (entry >> 13 & 0xff) << 32;
  return Gpa(frame | (address & offset_mask));
}

// Reads the entry at `gpa`; entries are aligned, so they never cross a page.
bool read_entry(const PhysicalReader& reader, Gpa gpa, int bytes, uint64_t& entry) {
  uint8_t raw[8] = {};
  if (!reader.read(gpa, std::span(raw).first(static_cast<size_t>(bytes)))) return false;
  std::memcpy(&entry, raw, sizeof entry);
  return true;
}

uint64_t root_of(const Format& format, uint64_t cr3) {
  if (format.bare_root) return cr3 & 0xffff'ffe0;  // PAE's root is 32 bytes, aligned to its size
  return format.entry_bytes == 4 ? cr3 & 0xffff'f000 : cr3 & kAddressMask;
}

}  // namespace

PageWalk walk_page(const PagingState& state, const PhysicalReader& reader, Gva address, LinearAccess access,
                   bool walk_writes) {
  PageWalk walk;
  if ((state.cr0 & kCr0Paging) == 0) {
    walk.gpa = Gpa(address.raw);
    return walk;
  }
  const Format& format = format_of(state);
  const uint64_t linear = format.levels >= 4 ? address.raw : address.raw & 0xffff'ffff;
  Permissions permissions;
  uint64_t table = root_of(format, state.cr3);
  for (int level = format.levels; level >= 1; --level) {
    const int shift = 12 + (level - 1) * format.index_bits;
    const uint64_t index = linear >> shift & ((1ull << format.index_bits) - 1);
    const Gpa entry_address(table + index * static_cast<uint64_t>(format.entry_bytes));
    walk.entry_storage[walk.table_count] = entry_address;
    PageRight& visited = walk.storage[walk.table_count++];
    visited = {page_of(entry_address), walk_writes ? Right::kWrite : Right::kRead};
    uint64_t entry = 0;
    if (!read_entry(reader, entry_address, format.entry_bytes, entry)) {
      walk.outcome = WalkOutcome::kUnreadable;
      return walk;
    }
    const bool says_large = level > 1 && (entry & kLargePage) != 0;
    // PS is ignored by a mode without large pages, reserved where the mode has them but not at this level.
    const bool reserved = says_large && level > format.largest_page_level && format.entry_bytes == 8;
    if ((entry & kPresent) == 0 || reserved) {
      walk.outcome = WalkOutcome::kPageFault;
      return walk;
    }
    const bool bare = format.bare_root && level == format.levels;
    if (!bare) {
      permissions.writable &= (entry & kWritable) != 0;
      permissions.user &= (entry & kUser) != 0;
      if ((state.efer & kEferNoExecute) != 0) permissions.executable &= (entry & kNoExecute) == 0;
      if ((entry & kAccessed) == 0) visited.right = Right::kWrite;
    }
    if (level > 1 && !(says_large && level <= format.largest_page_level)) {
      table = entry & kAddressMask;
      continue;
    }
    if (!allowed(state, permissions, access)) {
      walk.outcome = WalkOutcome::kPageFault;
      return walk;
    }
    if (access.write && (entry & kDirty) == 0) visited.right = Right::kWrite;
    walk.gpa = leaf_address(format, entry, level, linear);
    return walk;
  }
  return walk;
}

std::optional<PageNumber> find_table(const PagingState& state, const PhysicalReader& reader,
                                     const std::function<bool(PageNumber)>& foreign) {
  if ((state.cr0 & kCr0Paging) == 0) return std::nullopt;
  const Format& format = format_of(state);
  using Table = std::pair<int, uint64_t>;  // its level and address
  std::vector<Table> todo = {{format.levels, root_of(format, state.cr3)}};
  std::set<Table> seen(todo.begin(), todo.end());
  while (!todo.empty()) {
    const auto [level, table] = todo.back();
    todo.pop_back();
    if (foreign(page_of(Gpa(table)))) return page_of(Gpa(table));
    if (level == 1) continue;
    const int entries = format.bare_root && level == format.levels ? 4 : 1 << format.index_bits;
    for (int i = 0; i < entries; ++i) {
      uint64_t entry = 0;
      if (!read_entry(reader, Gpa(table + static_cast<uint64_t>(i * format.entry_bytes)), format.entry_bytes,
                      entry))
        break;
      const bool large = level <= format.largest_page_level && (entry & kLargePage) != 0;
      if ((entry & kPresent) == 0 || large) continue;
      const Table next = {level - 1, entry & kAddressMask};
      if (seen.insert(next).second) todo.push_back(next);
    }
  }
  return std::nullopt;
}

void visit_user_memory(const PagingState& state, const PhysicalReader& reader,
                       const std::function<void(uint64_t entry)>& entry,
                       const std::function<void(Gpa start, uint64_t bytes)>& written) {
  const Format& format = format_of(state);
  std::set<std::tuple<int, bool, uint64_t>> seen;  // level, whether what is below may be written, address
  const std::function<void(int, bool, uint64_t)> visit = [&](int level, bool writable, uint64_t table) {
    if (!seen.emplace(level, writable, table).second) return;
    const uint64_t entries = 1ull << (level == format.levels ? format.index_bits - 1 : format.index_bits);
    for (uint64_t i = 0; i < entries; ++i) {
      uint64_t found = 0;
      if (!read_entry(reader, Gpa(table + i * sizeof found), sizeof found, found)) return;
      if ((found & kPresent) == 0 || (found & kUser) == 0) continue;
      entry(found);
      const bool may_write = writable && (found & kWritable) != 0;
      const bool leaf = level == 1 || (level <= format.largest_page_level && (found & kLargePage) != 0);
      const Gpa start = leaf_address(format, found, level, 0);
      if (!leaf)
        visit(level - 1, may_write, found & kAddressMask);
      else if (may_write && (found & kDirty) != 0 && seen.emplace(-level, true, start.raw).second)
        written(start, kPageSize << ((level - 1) * format.index_bits));
    }
  };
  visit(format.levels, true, root_of(format, state.cr3));
}

}  // namespace reprise::x86
