#include "replay/gdb/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "log/file_io.h"
#include "x86/page_walk.h"

namespace reprise::replay::gdb {
namespace {

constexpr size_t kMostRanges = PN_XNUM - 2;  // and one header for the notes
constexpr uint64_t kLevelBits = 9, kLegacyLevelBits = 10;

class VcpuMemory final : public x86::PhysicalReader {
 public:
  VcpuMemory(const DebugTarget& target, VcpuId vcpu) : target_(target), vcpu_(vcpu) {}
  [[nodiscard]] bool read(Gpa gpa, std::span<uint8_t> out) const override {
    return target_.read_physical(vcpu_, gpa, out) == out.size();
  }

 private:
  const DebugTarget& target_;
  const VcpuId vcpu_;
};

struct MappedRange {
  uint64_t linear = 0, physical = 0, bytes = 0;
};

// How addresses are translated. Source: Intel SDM vol. 3, table 4-1.
class AddressSpace {
 public:
  explicit AddressSpace(const kvm_sregs& sregs)
      : state_{.cr0 = sregs.cr0,
               .cr3 = sregs.cr3,
               .cr4 = sregs.cr4,
               .efer = sregs.efer,
               .alignment_check = true} {  // user mode's pages are not forbidden
    if ((state_.cr0 & x86::kCr0Paging) == 0) return;
    levels_ = 2;
    if ((state_.cr4 & x86::kCr4PhysicalAddressExtension) != 0) levels_ = 3;
    if ((state_.efer & x86::kEferLongModeActive) != 0)
      levels_ = (state_.cr4 & x86::kCr4FiveLevels) != 0 ? 5 : 4;
  }

  // All that is mapped to RAM, by linear addresses. False: there is more than `most`.
  [[nodiscard]] bool find(const x86::PhysicalReader& memory, uint64_t ram, size_t most,
                          std::vector<MappedRange>& ranges) const {
    if (levels_ == 0) {
      ranges.push_back({0, 0, ram});
      return true;
    }
    constexpr uint64_t kLegacyEnd = 1ull << 32;
    if (levels_ < 4) return find(memory, ram, most, 0, kLegacyEnd - 1, ranges);
    const uint64_t half = 1ull << (kPageShift + levels_ * kLevelBits - 1);
    return find(memory, ram, most, 0, half - 1, ranges) &&
           find(memory, ram, most, ~(half - 1), ~uint64_t{0}, ranges);
  }

 private:
  // Of what an entry in the last of so many tables maps.
  [[nodiscard]] uint64_t bytes_of_entry(unsigned tables) const {
    const uint64_t bits = levels_ == 2 ? kLegacyLevelBits : kLevelBits;
    return kPageSize << (bits * (levels_ - std::clamp(tables, 1u, levels_)));
  }

  [[nodiscard]] bool find(const x86::PhysicalReader& memory, uint64_t ram, size_t most, uint64_t first,
                          uint64_t last, std::vector<MappedRange>& ranges) const {
    for (uint64_t at = first;;) {
      const auto walk = x86::walk_page(state_, memory, Gva(at), {}, false);
      const uint64_t bytes = bytes_of_entry(walk.table_count);
      if (walk.outcome == x86::WalkOutcome::kMapped && walk.gpa.raw < ram) {
        const uint64_t part = std::min(bytes - (at & (bytes - 1)), ram - walk.gpa.raw);
        MappedRange* const before = ranges.empty() ? nullptr : &ranges.back();
        if (before != nullptr && before->linear + before->bytes == at &&
            before->physical + before->bytes == walk.gpa.raw)
          before->bytes += part;
        else if (ranges.size() == most)
          return false;
        else
          ranges.push_back({at, walk.gpa.raw, part});
      }
      const uint64_t end = at | (bytes - 1);
      if (end >= last) return true;
      at = end + 1;
    }
  }

  x86::PagingState state_;
  unsigned levels_ = 0;  // of tables
};

// The notes of one thread. Source: Linux include/linux/elfcore.h; arch/x86/include/asm/user_64.h.
class Notes {
 public:
  void add(uint32_t type, const void* data, size_t bytes) {
    static constexpr std::string_view kName("CORE\0\0\0\0", 8);  // five bytes, padded to eight
    const Elf64_Nhdr header{.n_namesz = 5, .n_descsz = static_cast<Elf64_Word>(bytes), .n_type = type};
    append(&header, sizeof header);
    append(kName.data(), kName.size());
    append(data, bytes);
    bytes_.resize((bytes_.size() + 3) / 4 * 4);
  }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  void append(const void* data, size_t bytes) {
    const auto* const from = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), from, from + bytes);
  }
  std::vector<uint8_t> bytes_;
};

void add_thread(Notes& notes, VcpuId vcpu, const Registers& registers) {
  const kvm_regs& general = registers.general;
  const kvm_sregs& special = registers.special;
  const std::array<uint64_t, ELF_NGREG> values = {
      general.r15,         general.r14,
      general.r13,         general.r12,
      general.rbp,         general.rbx,
      general.r11,         general.r10,
      general.r9,          general.r8,
      general.rax,         general.rcx,
      general.rdx,         general.rsi,
      general.rdi,         ~uint64_t{0} /* orig_rax: in no system call */,
      general.rip,         special.cs.selector,
      general.rflags,      general.rsp,
      special.ss.selector, special.fs.base,
      special.gs.base,     special.ds.selector,
      special.es.selector, special.fs.selector,
      special.gs.selector};
  elf_prstatus status{};
  status.pr_pid = static_cast<pid_t>(vcpu.raw + 1);
  status.pr_fpvalid = 1;
  static_assert(sizeof status.pr_reg == sizeof values);
  std::memcpy(&status.pr_reg, values.data(), sizeof values);
  notes.add(NT_PRSTATUS, &status, sizeof status);
  notes.add(NT_FPREGSET, registers.fxsave.data(), registers.fxsave.size());
}

// A new one, or what is there is written over, as GDB does. Only its owner may read it from then on.
Result<UniqueFd> create_core(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid())
    return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot create {}", path.string()));
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0 || (S_ISREG(found.st_mode) && ::fchmod(fd.get(), 0600) != 0))
    return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot keep {} from others", path.string()));
  return fd;
}

template <typename T>
log::Bytes bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

Elf64_Ehdr core_header(size_t program_headers) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(program_headers);
  return header;
}

// A file's page is a page of RAM, whoever maps it.
Status write_ram(const DebugTarget& target, VcpuId vcpu, uint64_t ram, uint64_t offset, int fd,
                 const std::filesystem::path& path) {
  constexpr std::array<uint8_t, kPageSize> kZeros{};
  std::array<uint8_t, kPageSize> page{};
  for (uint64_t at = 0; at < ram; at += kPageSize)
    if (target.read_physical(vcpu, Gpa(at), page) == page.size() && page != kZeros)
      TRY(log::write_at(fd, offset + at, page, path));
  if (::ftruncate(fd, static_cast<off_t>(offset + ram)) == 0) return {};
  return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot write {}", path.string()));
}

}  // namespace

Result<CoreContent> write_core_file(const DebugTarget& target, VcpuId vcpu,
                                    const std::filesystem::path& path) {
  Notes notes;
  TRY_ASSIGN(const Registers first, target.registers(vcpu));
  add_thread(notes, vcpu, first);
  for (VcpuId other; other.raw < target.vcpu_count(); ++other) {
    if (other == vcpu) continue;
    TRY_ASSIGN(const Registers registers, target.registers(other));
    add_thread(notes, other, registers);
  }
  const uint64_t ram = target.ram_end().raw;
  std::vector<MappedRange> ranges;
  CoreContent content;
  content.is_whole = AddressSpace(first.special).find(VcpuMemory(target, vcpu), ram, kMostRanges, ranges);
  content.ranges = ranges.size();

  const uint64_t notes_at = sizeof(Elf64_Ehdr) + (ranges.size() + 1) * sizeof(Elf64_Phdr);
  const uint64_t ram_at = (notes_at + notes.bytes().size() + kPageSize - 1) / kPageSize * kPageSize;
  std::vector<Elf64_Phdr> headers(1);
  headers[0].p_type = PT_NOTE;
  headers[0].p_offset = notes_at;
  headers[0].p_filesz = notes.bytes().size();
  for (const MappedRange& range : ranges) {
    content.mapped_bytes += range.bytes;
    Elf64_Phdr header{};
    header.p_type = PT_LOAD;
    header.p_flags = PF_R | PF_W | PF_X;
    header.p_offset = ram_at + range.physical;
    header.p_vaddr = range.linear;
    header.p_paddr = range.physical;
    header.p_filesz = header.p_memsz = range.bytes;
    header.p_align = 1;
    headers.push_back(header);
  }
  TRY_ASSIGN(const UniqueFd fd, create_core(path));
  const Elf64_Ehdr header = core_header(headers.size());
  TRY(log::write_at(fd.get(), 0, bytes_of(std::span(&header, 1)), path));
  TRY(log::write_at(fd.get(), sizeof header, bytes_of(std::span<const Elf64_Phdr>(headers)), path));
  TRY(log::write_at(fd.get(), notes_at, notes.bytes(), path));
  TRY(write_ram(target, vcpu, ram, ram_at, fd.get(), path));
  return content;
}

}  // namespace reprise::replay::gdb
