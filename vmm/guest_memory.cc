#include "vmm/guest_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "vmm/kvm/userfault.h"

namespace reprise::vmm {

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(const RamLayout& layout, bool huge) {
  const uint64_t bytes = layout.bytes;
  UniqueFd fd(::memfd_create("guest-ram", MFD_CLOEXEC));
  if (!fd.valid()) return fail_errno(ErrorCode::kHost, errno, "memfd_create for guest RAM");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) < 0)
    return fail_errno(ErrorCode::kHost, errno,
                      fmt::format("cannot reserve {} MiB of guest RAM", bytes >> 20));
  TRY_ASSIGN(Mapping ram,
             Mapping::create(bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get()));
  (void)::madvise(ram.data(), ram.size(), huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return std::unique_ptr<GuestMemory>(new GuestMemory(layout, std::move(fd), std::move(ram), huge));
}

// Where RAM has huge pages, lseek (Linux 6.1) leaves out pages that have data: replays had other digests than
// their recordings, whose memory was the same byte by byte. So with huge pages everything is read; a hole is
// then read as zeros, and stays one.
uint64_t GuestMemory::next_data(uint64_t at) const {
  if (huge_) return at;
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(at), SEEK_DATA);
  return data < 0 ? bytes() : static_cast<uint64_t>(data);  // ENXIO: only a hole is left
}

bool is_zeros(std::span<const uint8_t> page) {
  return page[0] == 0 && std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

Status GuestMemory::for_each_used_page(
    const std::function<void(PageNumber, std::span<const uint8_t>)>& visit) const {
  return for_each_page([&](PageNumber page, std::span<const uint8_t> bytes) {
    if (!is_zeros(bytes)) visit(page, bytes);
  });
}

Status GuestMemory::for_each_page(
    const std::function<void(PageNumber, std::span<const uint8_t>)>& visit) const {
  constexpr size_t kChunk = 128 << 10;  // stays in a processor's cache
  std::vector<uint8_t> chunk(kChunk);
  for (uint64_t at = next_data(0); at < bytes(); at = next_data(at)) {
    const size_t wanted = std::min<uint64_t>(chunk.size(), bytes() - at);
    const ssize_t got = ::pread(fd_.get(), chunk.data(), wanted, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    // Whole pages: the memory is that, and its file system gives nothing else.
    if (got <= 0 || static_cast<size_t>(got) % kPageSize != 0)
      return fail_errno(ErrorCode::kHost, errno, "guest RAM cannot be read");
    for (size_t done = 0; done < static_cast<size_t>(got); done += kPageSize)
      visit(page_of(Gpa(at + done)), std::span<const uint8_t>(chunk.data() + done, kPageSize));
    at += static_cast<size_t>(got);
  }
  return {};
}

namespace {

Result<std::unique_ptr<ept::PageMapper>> make_mapper(const GuestMemory& memory, const Mapping& alias,
                                                     ViewKind kind, Right initial) {
  if (kind == ViewKind::kUserfault)
    return UserfaultMapper::create(alias.data(), alias.size(), memory.ram().data());
  return MprotectMapper::create(alias.data(), alias.size(), initial);
}

}  // namespace

Result<std::unique_ptr<ViewMemory>> ViewMemory::create(const GuestMemory& memory, PrivateRange range,
                                                       ViewKind kind, uint64_t tokens) {
  TRY_ASSIGN(Mapping alias, Mapping::create(memory.bytes(), PROT_READ | PROT_WRITE,
                                            MAP_SHARED | MAP_NORESERVE, memory.fd()));
  // Page permissions are per 4 KiB page: huge pages would be split at the first change anyway. Where there
  // are none, a huge page saves hundreds of faults.
  (void)::madvise(alias.data(), alias.size(),
                  kind == ViewKind::kUnprotected ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  const Right initial = kind == ViewKind::kUnprotected ? Right::kWrite : Right::kNone;
  TRY_ASSIGN(auto mapper, make_mapper(memory, alias, kind, initial));
  if (range.bytes() > 0) {
    // Over the view, after the mapper has taken charge of it: these pages belong to no protocol.
    void* copy = ::mmap(alias.data() + range.start.raw, range.bytes(), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (copy == MAP_FAILED) return fail_errno(ErrorCode::kHost, errno, "cannot map a vCPU's private pages");
    std::memcpy(copy, memory.ram().data() + range.start.raw, range.bytes());
  }
  return std::unique_ptr<ViewMemory>(
      new ViewMemory(memory, range, std::move(alias), std::move(mapper), tokens, initial));
}

ViewMemory::ViewMemory(const GuestMemory& memory, PrivateRange range, Mapping alias,
                       std::unique_ptr<ept::PageMapper> mapper, uint64_t tokens, Right initial)
    : memory_(memory),
      range_(range),
      alias_(std::move(alias)),
      view_(memory.pages(), tokens, std::move(mapper), initial) {
  for (Gpa gpa = range.start; gpa < range.end; gpa = gpa + kPageSize) view_.exempt(page_of(gpa));
}

const uint8_t* ViewMemory::at(Gpa gpa, size_t bytes) const {
  if (gpa.raw >= memory_.bytes() || bytes > memory_.bytes() - gpa.raw) return nullptr;
  if (bytes == 0 || (gpa.raw & (kPageSize - 1)) + bytes > kPageSize) return nullptr;
  // Through the VMM's own mapping where the view's may be absent for a moment (the host reclaims pages).
  return (range_.contains(gpa) ? alias_.data() : memory_.ram().data()) + gpa.raw;
}

uint8_t* ViewMemory::writable(Gpa gpa, size_t bytes) const {
  if (at(gpa, bytes) == nullptr) return nullptr;
  return range_.contains(gpa) ? alias_.data() + gpa.raw : memory_.writable(gpa, bytes).data();
}

bool ViewMemory::read(Gpa gpa, std::span<uint8_t> out) const {
  const uint8_t* const from = view_.allows(page_of(gpa), Right::kRead) ? at(gpa, out.size()) : nullptr;
  if (from == nullptr) return false;
  std::memcpy(out.data(), from, out.size());
  return true;
}

bool ViewMemory::write(Gpa gpa, std::span<const uint8_t> bytes) {
  uint8_t* const to = view_.allows(page_of(gpa), Right::kWrite) ? writable(gpa, bytes.size()) : nullptr;
  if (to == nullptr) return false;
  std::memcpy(to, bytes.data(), bytes.size());
  return true;
}

}  // namespace reprise::vmm
