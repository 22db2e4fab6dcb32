#include "vmm/guest/linux/linux.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/guest/elf_file.h"
#include "vmm/guest/linux/acpi.h"

namespace reprise::vmm {
namespace {

// Below the first MiB, where no kernel of the last 15 years is loaded.
constexpr Gpa kGdt{0x8000};
constexpr Gpa kPageTables{0x9000};  // one PML4, one PDPT, four page directories: 4 GiB, identity
constexpr Gpa kBootParams{0x10000};
constexpr Gpa kCommandLine{0x20000};
constexpr Gpa kSetupData{0x21000};
constexpr Gpa kBootAreaBegin{0x6000};
constexpr Gpa kBootAreaEnd{0x100000};
constexpr uint64_t kLowMemoryEnd = 0x9fc00;  // where a PC's extended BIOS data begins
constexpr uint64_t kFirmwareBegin = 0xe0000;
constexpr uint64_t kMiB = 1ull << 20;

// Offsets in struct boot_params. Source: arch/x86/include/uapi/asm/bootparam.h.
constexpr uint64_t kRsdpAddress = 0x070;
constexpr uint64_t kE820Entries = 0x1e8;
constexpr uint64_t kBootFlag = 0x1fe;
constexpr uint64_t kHeaderMagic = 0x202;
constexpr uint64_t kProtocolVersion = 0x206;
constexpr uint64_t kLoaderType = 0x210;
constexpr uint64_t kLoadFlags = 0x211;
constexpr uint64_t kInitrdAddress = 0x218;
constexpr uint64_t kInitrdBytes = 0x21c;
constexpr uint64_t kCommandLinePointer = 0x228;
constexpr uint64_t kSetupDataPointer = 0x250;
constexpr uint64_t kE820Table = 0x2d0;

struct __attribute__((packed)) E820Entry {
  uint64_t address;
  uint64_t size;
  uint32_t type;
};
static_assert(sizeof(E820Entry) == 20);
constexpr uint32_t kRam = 1;
constexpr uint32_t kReserved = 2;

// SETUP_RNG_SEED. Without it the kernel waits for entropy that this machine hardly makes. The same bytes in
// every run: what a guest draws from them is no secret, and differs from run to run only by what it does
// (docs/limitations.md).
constexpr uint32_t kRngSeed = 9;
constexpr uint32_t kSeedBytes = 32;

struct Word {
  std::string_view text;
  std::string_view why;
};
constexpr std::array kWords = {
    Word{"tsc_early_khz=1000000",
         "the TSC is virtual time in ns; calibrating it would only measure how long that takes"},
    Word{"tsc=reliable", "and no watchdog is needed: it is one counter for all CPUs"},
    Word{"lpj=4000000", "delay loops are calibrated: 1000 turns a microsecond, as with that TSC"},
    Word{"vdso=0", "clocks are read by system calls, where rdtsc is patched, not in user mode"},
    Word{"random.trust_bootloader=on", "the seed counts, so that nobody waits for entropy"},
    Word{"randomize_kstack_offset=off",
         "or each return to user mode reads the TSC for a few random bits: an exit for every system call"},
    Word{"noxsave", "the CPU model has SSE2 and no XSAVE"},
    Word{"nowatchdog", "a vCPU that others keep waiting is not locked up"},
    Word{"rcupdate.rcu_cpu_stall_suppress=1", "nor is it stalled"},
};

template <typename T>
void put(std::span<uint8_t> ram, uint64_t address, const T& value) {
  std::memcpy(ram.subspan(address, sizeof value).data(), &value, sizeof value);
}

Status check_memory(const LinuxGuest& guest) {
  if (guest.memory_bytes >= kMinLinuxRamBytes && guest.memory_bytes <= kMaxLinuxRamBytes &&
      guest.memory_bytes % kMiB == 0)
    return {};
  return fail(ErrorCode::kUsage, "a Linux guest cannot have {} MiB of memory: {} to {} MiB are possible",
              guest.memory_bytes / kMiB, kMinLinuxRamBytes / kMiB, kMaxLinuxRamBytes / kMiB);
}

void write_page_tables(std::span<uint8_t> ram) {
  constexpr uint64_t kPresentWritable = 3, kAccessedDirty = 0x60, kLarge = 0x80;
  const uint64_t pdpt = kPageTables.raw + kPageSize;
  put(ram, kPageTables.raw, pdpt | kPresentWritable | 0x20);
  for (uint64_t i = 0; i < 4; ++i) {
    const uint64_t directory = pdpt + kPageSize * (i + 1);
    put(ram, pdpt + 8 * i, directory | kPresentWritable | 0x20);
    for (uint64_t k = 0; k < 512; ++k)
      put(ram, directory + 8 * k, i << 30 | k << 21 | kPresentWritable | kAccessedDirty | kLarge);
  }
}

void write_memory_map(std::span<uint8_t> ram, uint64_t memory_bytes) {
  std::vector<E820Entry> map = {{0, kLowMemoryEnd, kRam},
                                {kFirmwareBegin, kMiB - kFirmwareBegin, kReserved},
                                {kMiB, std::min(memory_bytes, kLowRamEnd) - kMiB, kRam}};
  if (memory_bytes > kLowRamEnd) map.push_back({kHighRamBegin, memory_bytes - kLowRamEnd, kRam});
  put(ram, kBootParams.raw + kE820Entries, static_cast<uint8_t>(map.size()));
  for (size_t i = 0; i < map.size(); ++i)
    put(ram, kBootParams.raw + kE820Table + i * sizeof(E820Entry), map[i]);
}

void write_seed(std::span<uint8_t> ram) {
  put(ram, kSetupData.raw, uint64_t{0});  // the last one
  put(ram, kSetupData.raw + 8, kRngSeed);
  put(ram, kSetupData.raw + 12, kSeedBytes);
  for (uint32_t i = 0; i < kSeedBytes; ++i)
    put(ram, kSetupData.raw + 16 + i, static_cast<uint8_t>(i * 7 + 3));
}

// As guest-images/linux/program_clock.cc expects it.
void write_program_clock(std::span<uint8_t> ram) {
  constexpr uint64_t kLimit = 8, kSignature = 24;
  put(ram, kProgramClock.raw + kLimit, ~uint64_t{0});
  put(ram, kProgramClock.raw + kSignature, std::array{'R', 'e', 'p', 'r', 'i', 's', 'e', '1'});
}

// As high as it can be: the kernel unpacks it from there and frees the pages. Page-aligned, below 3 GiB.
Result<uint64_t> place_initrd(const LinuxGuest& guest, uint64_t kernel_end) {
  const uint64_t end = std::min(guest.memory_bytes, kLowRamEnd);
  // Room for what is unpacked is the kernel's own business: it says so and panics.
  const uint64_t begin = (kernel_end + kPageSize - 1) & ~(kPageSize - 1);
  if (guest.initrd.size() > end - begin)
    return bad_image("kernel ({} MiB) and initrd ({} MiB) do not fit into {} MiB of memory: use --memory",
                     kernel_end / kMiB, guest.initrd.size() / kMiB, guest.memory_bytes / kMiB);
  return (end - guest.initrd.size()) & ~(kPageSize - 1);
}

}  // namespace

std::string linux_command_line(std::string_view user) {
  std::string line;
  for (const Word& word : kWords) line += std::string(word.text) + ' ';
  return line + std::string(user);
}

Result<LoadedLinux> load_linux(const LinuxGuest& guest, std::span<uint8_t> ram) {
  TRY(check_memory(guest));
  const std::string line = linux_command_line(guest.command_line);
  if (line.size() > kMaxLinuxCommandLine || line.find('\0') != std::string::npos)
    return fail(ErrorCode::kUsage,
                "the kernel's command line has {} bytes, {} of them Reprise's own: at most {} without a zero "
                "are possible",
                line.size(), line.size() - guest.command_line.size(), kMaxLinuxCommandLine);
  TRY_ASSIGN(const Elf64_Ehdr header, read_elf_header(guest.kernel));
  TRY_ASSIGN(const auto programs, read_program_headers(guest.kernel, header));
  TRY_ASSIGN(const auto segments, read_segments(guest.kernel, programs, kBootAreaBegin, kBootAreaEnd));
  const Segment& last = segments.back();
  const uint64_t kernel_end = last.address.raw + last.memory_bytes;
  if (kernel_end > std::min(guest.memory_bytes, kLowRamEnd))
    return bad_image("the kernel needs {} MiB, the machine has {} MiB: use --memory",
                     (kernel_end + kMiB - 1) / kMiB, guest.memory_bytes / kMiB);
  const bool inside = std::ranges::any_of(segments, [&](const Segment& segment) {
    return header.e_entry >= segment.address.raw &&
           header.e_entry - segment.address.raw < segment.data.size();
  });
  if (!inside)
    return bad_image("the kernel's entry point {:#x} is not in anything loaded: is it a Linux kernel?",
                     header.e_entry);
  TRY_ASSIGN(const uint64_t initrd, place_initrd(guest, kernel_end));

  write_segments(segments, ram);
  LoadedLinux loaded;
  TRY_ASSIGN(loaded.patches, patch_kernel(guest.kernel, ram, guest.with_clock));
  std::ranges::copy(guest.initrd, ram.subspan(initrd).begin());
  std::ranges::copy(line, ram.subspan(kCommandLine.raw).begin());
  write_seed(ram);
  write_program_clock(ram);
  write_acpi_tables(ram, guest.vcpus, guest.virtio);
  write_page_tables(ram);
  write_memory_map(ram, guest.memory_bytes);
  const uint64_t params = kBootParams.raw;
  put(ram, params + kRsdpAddress, kAcpiBegin.raw);
  put(ram, params + kBootFlag, uint16_t{0xaa55});
  put(ram, params + kHeaderMagic, uint32_t{0x53726448});  // "HdrS"
  put(ram, params + kProtocolVersion, uint16_t{0x020f});
  put(ram, params + kLoaderType, uint8_t{0xff});  // none of those that have a number
  put(ram, params + kLoadFlags, uint8_t{1});      // loaded high
  put(ram, params + kCommandLinePointer, static_cast<uint32_t>(kCommandLine.raw));
  put(ram, params + kSetupDataPointer, kSetupData.raw);
  if (!guest.initrd.empty()) {
    put(ram, params + kInitrdAddress, static_cast<uint32_t>(initrd));
    put(ram, params + kInitrdBytes, static_cast<uint32_t>(guest.initrd.size()));
  }
  // __BOOT_CS 0x10, __BOOT_DS 0x18. Source: boot.rst, "64-bit Boot Protocol".
  constexpr std::array<uint64_t, 4> kDescriptors = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
  put(ram, kGdt.raw, kDescriptors);
  loaded.boot = BootState{
      .entry = Gpa(header.e_entry),
      .rsi = params,
      .rflags = 0x2,
      .cr0 = 0x80050033,  // PG, AM, WP, NE, ET, MP, PE
      .cr3 = kPageTables.raw,
      .cr4 = 0x620,   // PAE, OSFXSR, OSXMMEXCPT
      .efer = 0x500,  // LME, LMA
      .code = {0x10, 0, 0xffffffff, 0xb, true, false, true, true},
      .data = {0x18, 0, 0xffffffff, 0x3, true, true, true},
      .task = {0, 0, 0x67, 0xb, false, false, false},
      .gdt = kGdt,
      .gdt_limit = sizeof(kDescriptors) - 1,
  };
  return loaded;
}

}  // namespace reprise::vmm
