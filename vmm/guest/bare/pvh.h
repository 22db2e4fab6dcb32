// From a guest's ELF file to the state in which its first instruction runs: the PVH boot protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "vmm/guest/boot_state.h"
#include "vmm/guest/elf_file.h"

namespace reprise::vmm {

// What the loader puts below the loaded image. The page from kApTrampoline on is for the guest, to start its
// other vCPUs from (STARTUP vector 8). An image whose segments touch [kBootAreaBegin, kBootAreaEnd) is
// refused.
inline constexpr Gpa kBootAreaBegin{0x6000};
inline constexpr Gpa kGdtAddress{0x6000};          // 4 descriptors
inline constexpr Gpa kStartInfoAddress{0x6100};    // struct hvm_start_info; ebx points here
inline constexpr Gpa kMemoryMapAddress{0x6180};    // struct hvm_memmap_table_entry, 3 of them
inline constexpr Gpa kCommandLineAddress{0x6800};  // with a final zero byte
inline constexpr Gpa kBootAreaEnd{0x8000};
inline constexpr Gpa kApTrampoline{0x8000};
inline constexpr size_t kMaxCommandLine = 0x8000 - 0x6800 - 1;  // bytes, without the zero

// RAM is one piece from address 0. It must end below the I/O APIC, HPET and local APIC of a PC, and have
// room above the first MiB.
inline constexpr uint64_t kMinRamBytes = 2ull << 20;
inline constexpr uint64_t kMaxRamBytes = 3ull << 30;
// Each vCPU has its own copy of the private range, in memory and in every checkpoint.
inline constexpr uint64_t kMaxPrivateBytes = 64ull << 20;

// What an image of ours says about itself in the ELF note of owner "Reprise", type 1: little-endian
// { u32 version = 1; u32 flags; u64 clock_gpa, trap_gpa, private_begin, private_end }.
struct RepriseNote {
  bool safepoints = false;  // flags bit 0: compiled with safepoints; without it the next two are not used
  Gpa clock;                // the page with `count` and `limit`; in the private range
  Gpa trap;                 // the page that a safepoint touches; never RAM
  Gpa private_begin;        // pages of which each vCPU has its own, [begin, end); may be empty
  Gpa private_end;
  bool operator==(const RepriseNote&) const = default;
};

// A bootable image. Lifetime: views the bytes that it was parsed from.
struct Image {
  Gpa entry;                           // 32-bit, inside a segment
  std::vector<Segment> segments;       // by address, without overlap; never empty
  std::optional<RepriseNote> reprise;  // none in an ordinary kernel, for example vmlinux
};

// Reads an ELF64 file that has a PVH entry point (a note of owner "Xen", type 18). Any bytes are safe.
// Errors: kBadImage, one sentence: not ELF, not x86-64, truncated, no PVH note, bad segments, bad Reprise
// note. Source: System V ABI "ELF-64 Object File Format"; Xen docs/misc/pvh.pandoc,
// xen/include/public/elfnote.h.
Result<Image> parse_image(std::span<const uint8_t> elf);

// The Reprise note of an image that has to have one with safepoints. Errors: kBadImage otherwise.
Result<RepriseNote> require_safepoints(const Image& image);

// Whether the image can run in a machine with `ram_bytes` of RAM. Errors: kUsage for an impossible machine;
// kBadImage, with the size that is needed, for segments or private pages outside RAM, and for a trap page
// inside.
Status check_fits(const Image& image, uint64_t ram_bytes);

// Writes segments, start info, memory map, command line and GDT into RAM. `ram` is the machine's whole RAM,
// from guest-physical address 0. Nothing is written if it fails. Errors: as check_fits(); kUsage for a
// command line that is too long or has a zero byte in it.
Result<BootState> load(const Image& image, std::span<uint8_t> ram, std::string_view command_line);

}  // namespace reprise::vmm
