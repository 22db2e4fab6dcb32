#include "vmm/guest/bare/pvh.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include "vmm/device/hpet.h"
#include "vmm/device/irq/io_apic.h"
#include "vmm/device/irq/local_apic.h"

namespace reprise::vmm {
namespace {

static_assert(std::endian::native == std::endian::little, "guest structures are copied as they are");

constexpr uint32_t kPvhEntryNote = 18;  // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
constexpr uint32_t kRepriseNote = 1;
constexpr uint32_t kRepriseVersion = 1;
constexpr uint32_t kSafepointsFlag = 1;
constexpr uint64_t kMiB = 1ull << 20;

// xen/include/public/arch-x86/hvm/start_info.h, version 1.
struct StartInfo {
  uint32_t magic = 0x336ec578;
  uint32_t version = 1;
  uint32_t flags = 0;
  uint32_t modules = 0;
  uint64_t module_list = 0;
  uint64_t command_line = 0;
  uint64_t rsdp = 0;
  uint64_t memory_map = 0;
  uint32_t memory_map_entries = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct MemoryMapEntry {
  uint64_t address;
  uint64_t size;
  uint32_t type;
  uint32_t reserved;
};
static_assert(sizeof(MemoryMapEntry) == 24);
constexpr uint32_t kE820Ram = 1;
constexpr uint32_t kE820Reserved = 2;
constexpr uint64_t kLegacyHoleBegin = 0xa0000;  // video memory and firmware of a PC
constexpr uint64_t kLegacyHoleEnd = 0x100000;

struct RepriseNoteLayout {
  uint32_t version;
  uint32_t flags;
  uint64_t clock_gpa;
  uint64_t trap_gpa;
  uint64_t private_begin;
  uint64_t private_end;
};
static_assert(sizeof(RepriseNoteLayout) == 40);

// Flat 32-bit code and data, and a busy TSS at 0, as the boot ABI wants them in the registers; a GDT that
// holds the same, for guests that reload a segment before they have one of their own. Source: SDM vol.
// 3, 3.4.5.
constexpr std::array<uint64_t, 4> kGdt = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067};
constexpr uint16_t kCodeSelector = 0x08;
constexpr uint16_t kDataSelector = 0x10;
constexpr uint16_t kTaskSelector = 0x18;

static_assert(kGdtAddress.raw + sizeof(kGdt) <= kStartInfoAddress.raw);
static_assert(kStartInfoAddress.raw + sizeof(StartInfo) <= kMemoryMapAddress.raw);
static_assert(kMemoryMapAddress.raw + 3 * sizeof(MemoryMapEntry) <= kCommandLineAddress.raw);
static_assert(kMaxRamBytes <= kIoApicBase && kMaxRamBytes <= kHpetBase && kMaxRamBytes <= kLocalApicBase);
static_assert(kAddressLimit <= UINT64_MAX / 2);

bool is_page_aligned(uint64_t address) {
  return address % kPageSize == 0;
}

// The notes that matter, as found; each at most once.
struct Notes {
  std::optional<Bytes> pvh_entry;
  std::optional<Bytes> reprise;
};

Status keep_note(std::optional<Bytes>& slot, Bytes description, std::string_view name) {
  if (slot) return bad_image("duplicate note: the guest image has two {} notes, needed is one", name);
  slot = description;
  return {};
}

// One PT_NOTE segment. Source: System V ABI, "Note Section"; 8-byte alignment as GNU tools use it.
Status read_notes(Bytes bytes, uint64_t alignment, Notes& notes) {
  const auto padded = [alignment](uint64_t size) { return (size + alignment - 1) / alignment * alignment; };
  uint64_t offset = 0;
  while (offset < bytes.size()) {
    const auto header = get<Elf64_Nhdr>(bytes, offset);
    // All sums stay below 2^34 plus the file's size: sizes in a note are 32 bits.
    const auto name = header ? slice(bytes, offset + sizeof(*header), header->n_namesz) : std::nullopt;
    const uint64_t start = header ? offset + padded(sizeof(*header) + header->n_namesz) : 0;
    const auto description = header ? slice(bytes, start, header->n_descsz) : std::nullopt;
    if (!header || !name || !description)
      return bad_image("the guest image has a damaged ELF note, {} bytes into its note segment", offset);
    const std::string_view owner(reinterpret_cast<const char*>(name->data()), name->size());
    if (owner == std::string_view("Xen\0", 4) && header->n_type == kPvhEntryNote)
      TRY(keep_note(notes.pvh_entry, *description, "PVH entry"));
    if (owner == std::string_view("Reprise\0", 8) && header->n_type == kRepriseNote)
      TRY(keep_note(notes.reprise, *description, "Reprise"));
    offset = start + padded(header->n_descsz);
  }
  return {};
}

// Requires: `notes` has a PVH entry.
Result<Gpa> read_entry(const Notes& notes, const std::vector<Segment>& segments) {
  // An address of either width: Linux on x86-64 writes eight bytes.
  uint64_t entry = 0;
  if (const auto wide = get<uint64_t>(*notes.pvh_entry, 0)) {
    entry = *wide;
  } else if (const auto narrow = get<uint32_t>(*notes.pvh_entry, 0)) {
    entry = *narrow;
  } else {
    return bad_image("the PVH entry note has {} bytes: 4 or 8 are needed", notes.pvh_entry->size());
  }
  const bool inside = std::ranges::any_of(segments, [entry](const Segment& segment) {
    return entry >= segment.address.raw && entry - segment.address.raw < segment.memory_bytes;
  });
  if (!inside || entry > UINT32_MAX)
    return bad_image("the PVH entry point {:#x} is not the 32-bit address of anything loaded", entry);
  return Gpa(entry);
}

Status check_safepoint_pages(const RepriseNoteLayout& note) {
  if (!is_page_aligned(note.clock_gpa) || !is_page_aligned(note.trap_gpa))
    return bad_image(
        "the Reprise note puts the clock at {:#x} and the trap at {:#x}: both must be page aligned",
        note.clock_gpa, note.trap_gpa);
  if (note.clock_gpa < note.private_begin || note.clock_gpa >= note.private_end)
    return bad_image(
        "the Reprise note puts the clock page at {:#x}, outside the private range {:#x} to {:#x}",
        note.clock_gpa, note.private_begin, note.private_end);
  if (note.trap_gpa >= kAddressLimit || note.trap_gpa == kIoApicBase || note.trap_gpa == kHpetBase ||
      note.trap_gpa == kLocalApicBase)
    return bad_image("the Reprise note puts the trap page at {:#x}, on a device or out of reach",
                     note.trap_gpa);
  return {};
}

Result<RepriseNote> read_reprise_note(Bytes bytes) {
  const auto version = get<uint32_t>(bytes, 0);
  const auto note = get<RepriseNoteLayout>(bytes, 0);
  if (version && *version != kRepriseVersion)
    return bad_image("the Reprise note has version {}: this program knows {}", *version, kRepriseVersion);
  if (!note || bytes.size() != sizeof(RepriseNoteLayout))
    return bad_image("the Reprise note has {} bytes: {} are needed", bytes.size(), sizeof(RepriseNoteLayout));
  if ((note->flags & ~kSafepointsFlag) != 0)
    return bad_image("the Reprise note has flags {:#x}: this program knows {:#x}", note->flags,
                     kSafepointsFlag);
  if (!is_page_aligned(note->private_begin) || !is_page_aligned(note->private_end) ||
      note->private_begin > note->private_end)
    return bad_image("the Reprise note has a private range {:#x} to {:#x}: it must begin and end at a page",
                     note->private_begin, note->private_end);
  if (note->private_end - note->private_begin > kMaxPrivateBytes)
    return bad_image("the Reprise note has {} MiB of private pages: at most {} MiB are possible",
                     (note->private_end - note->private_begin) / kMiB, kMaxPrivateBytes / kMiB);
  const bool safepoints = (note->flags & kSafepointsFlag) != 0;
  if (safepoints) TRY(check_safepoint_pages(*note));
  return RepriseNote{.safepoints = safepoints,
                     .clock = Gpa(note->clock_gpa),
                     .trap = Gpa(note->trap_gpa),
                     .private_begin = Gpa(note->private_begin),
                     .private_end = Gpa(note->private_end)};
}

Status check_inside_ram(std::string_view what, Gpa begin, uint64_t end, uint64_t ram_bytes) {
  if (end <= ram_bytes) return {};
  if (end > kMaxRamBytes)
    return bad_image("{} at {:#x} to {:#x} lies above the {} MiB that a machine can have", what, begin.raw,
                     end, kMaxRamBytes / kMiB);
  return bad_image("{} at {:#x} to {:#x} needs {} MiB, the machine has {} MiB: use --memory", what, begin.raw,
                   end, (end + kMiB - 1) / kMiB, ram_bytes / kMiB);
}

void put(std::span<uint8_t> ram, Gpa address, const void* data, size_t size) {
  std::memcpy(ram.subspan(address.raw, size).data(), data, size);
}

void write_start_info(std::span<uint8_t> ram, std::string_view command_line) {
  const std::array<MemoryMapEntry, 3> map = {{
      {0, kLegacyHoleBegin, kE820Ram, 0},
      {kLegacyHoleBegin, kLegacyHoleEnd - kLegacyHoleBegin, kE820Reserved, 0},
      {kLegacyHoleEnd, ram.size() - kLegacyHoleEnd, kE820Ram, 0},
  }};
  const StartInfo info = {.command_line = kCommandLineAddress.raw,
                          .memory_map = kMemoryMapAddress.raw,
                          .memory_map_entries = map.size()};
  put(ram, kGdtAddress, kGdt.data(), sizeof(kGdt));
  put(ram, kStartInfoAddress, &info, sizeof(info));
  put(ram, kMemoryMapAddress, map.data(), sizeof(map));
  std::ranges::copy(command_line, ram.subspan(kCommandLineAddress.raw).begin());
  ram[kCommandLineAddress.raw + command_line.size()] = 0;
}

}  // namespace

Result<Image> parse_image(Bytes elf) {
  TRY_ASSIGN(const Elf64_Ehdr header, read_elf_header(elf));
  TRY_ASSIGN(const auto programs, read_program_headers(elf, header));
  Image image;
  Notes notes;
  for (const auto& program : programs) {
    if (program.p_type != PT_NOTE) continue;
    const auto bytes = slice(elf, program.p_offset, program.p_filesz);
    if (!bytes)
      return bad_image("the guest image is truncated: its notes at offset {} are missing", program.p_offset);
    TRY(read_notes(*bytes, program.p_align == 8 ? 8 : 4, notes));
  }
  // Before the segments are looked at: what is wrong with a program for another system is that it has no such
  // note.
  if (!notes.pvh_entry)
    return bad_image(
        "the guest image has no PVH entry point (ELF note Xen 18): build the kernel with CONFIG_PVH");
  TRY_ASSIGN(image.segments, read_segments(elf, programs, kBootAreaBegin, kBootAreaEnd));
  TRY_ASSIGN(image.entry, read_entry(notes, image.segments));
  if (notes.reprise) {
    TRY_ASSIGN(image.reprise, read_reprise_note(*notes.reprise));
  }
  return image;
}

Result<RepriseNote> require_safepoints(const Image& image) {
  if (image.reprise && image.reprise->safepoints) return *image.reprise;
  return bad_image(
      "the guest image has no safepoints (no ELF note Reprise 1 that says so): build it with the "
      "guest-images tool chain, or, where the host has a branch counter (reprise doctor), use --clock "
      "branches");
}

Status check_fits(const Image& image, uint64_t ram_bytes) {
  if (ram_bytes < kMinRamBytes || ram_bytes > kMaxRamBytes || !is_page_aligned(ram_bytes))
    return fail(ErrorCode::kUsage,
                "a machine cannot have {} bytes of memory: {} to {} MiB are possible, in whole pages",
                ram_bytes, kMinRamBytes / kMiB, kMaxRamBytes / kMiB);
  if (image.segments.empty()) return bad_image("the guest image has nothing to load");
  // The last one ends highest, so that the message names the size that is enough for all.
  const Segment& last = image.segments.back();
  TRY(check_inside_ram("the segment", last.address, last.address.raw + last.memory_bytes, ram_bytes));
  if (!image.reprise) return {};
  TRY(check_inside_ram("the private range", image.reprise->private_begin, image.reprise->private_end.raw,
                       ram_bytes));
  if (image.reprise->safepoints && image.reprise->trap.raw < ram_bytes)
    return bad_image("the trap page at {:#x} is inside the machine's {} MiB of memory: use less --memory",
                     image.reprise->trap.raw, ram_bytes / kMiB);
  return {};
}

Result<BootState> load(const Image& image, std::span<uint8_t> ram, std::string_view command_line) {
  TRY(check_fits(image, ram.size()));
  if (command_line.size() > kMaxCommandLine || command_line.find('\0') != std::string_view::npos)
    return fail(ErrorCode::kUsage,
                "the guest's command line has {} bytes: at most {} without a zero are possible",
                command_line.size(), kMaxCommandLine);
  write_segments(image.segments, ram);
  write_start_info(ram, command_line);
  return BootState{
      .entry = image.entry,
      .rbx = kStartInfoAddress.raw,
      .rflags = 0x2,  // bit 1 is always set; IF, TF, VM clear
      .cr0 = 0x11,    // PE; ET is always set (SDM vol. 3, 2.5)
      .code = {kCodeSelector, 0, 0xffffffff, 0xb, true, true, true},
      .data = {kDataSelector, 0, 0xffffffff, 0x3, true, true, true},
      .task = {kTaskSelector, 0, 0x67, 0xb, false, false, false},
      .gdt = kGdtAddress,
      .gdt_limit = sizeof(kGdt) - 1,
  };
}

}  // namespace reprise::vmm
