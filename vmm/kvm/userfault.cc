#include "vmm/kvm/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP (static_cast<uint64_t>(1) << 1)  // Linux 6.4; Debian 12's headers are of 6.1
#endif

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)  // Linux 6.1
#endif

namespace reprise::vmm {
namespace {

constexpr uint64_t kNeeded = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                             UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;

// The system call needs root or a sysctl. From Linux 6.1 on there is a device file as well, which whoever may
// open it can use. Source: Linux Documentation/admin-guide/mm/userfaultfd.rst, "Creating a userfaultfd".
UniqueFd open_userfault() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, kFlags)));
  if (fd.valid()) return fd;
  const int error = errno;
  const UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device.valid()) fd = UniqueFd(::ioctl(device.get(), USERFAULTFD_IOC_NEW, kFlags));
  if (!fd.valid()) errno = error;
  return fd;
}

}  // namespace

Result<std::unique_ptr<ept::PageMapper>> UserfaultMapper::create(uint8_t* base, uint64_t bytes,
                                                                 const uint8_t* populated) {
  UniqueFd fd = open_userfault();
  if (!fd.valid())
    return fail_errno(
        ErrorCode::kHost, errno,
        "userfaultfd is not available (needed: read and write access to /dev/userfaultfd, which "
        "Linux 6.1 has; or root; or sysctl vm.unprivileged_userfaultfd=1)");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kNeeded;
  if (::ioctl(fd.get(), UFFDIO_API, &api) < 0)
    return fail_errno(
        ErrorCode::kHost, errno,
        "userfaultfd lacks minor faults or write protection on shared memory (needed: Linux 5.19)");
  uffdio_register region{};
  region.range.start = reinterpret_cast<uint64_t>(base);
  region.range.len = bytes;
  // MINOR: pages in the page cache; MISSING: pages that nobody has touched yet, which the kernel would else
  // just make.
  region.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd.get(), UFFDIO_REGISTER, &region) < 0)
    return fail_errno(ErrorCode::kHost, errno, "UFFDIO_REGISTER of a view");

  // Is CONTINUE with write protection there? Found by trying on the first page, which is made absent again.
  (void)*static_cast<const volatile uint8_t*>(populated);
  uffdio_continue probe{};
  probe.range.start = reinterpret_cast<uint64_t>(base);
  probe.range.len = kPageSize;
  probe.mode = UFFDIO_CONTINUE_MODE_WP;
  const bool continue_protected = ::ioctl(fd.get(), UFFDIO_CONTINUE, &probe) == 0;
  if (continue_protected && ::madvise(base, kPageSize, MADV_DONTNEED) < 0)
    return fail_errno(ErrorCode::kHost, errno, "MADV_DONTNEED of a view");
  return std::unique_ptr<ept::PageMapper>(
      new UserfaultMapper(std::move(fd), UniqueFd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)), base,
                          populated, continue_protected));
}

// Source: Linux Documentation/admin-guide/mm/pagemap.rst: 64 bits a page, of which bit 63 says "present".
bool UserfaultMapper::is_lost(PageNumber page) const {
  constexpr uint64_t kPresent = static_cast<uint64_t>(1) << 63;
  const uint64_t address = reinterpret_cast<uint64_t>(base_) + address_of(page).raw;
  uint64_t entry = 0;
  const auto offset = static_cast<off_t>(address / kPageSize * sizeof entry);
  return ::pread(pagemap_.get(), &entry, sizeof entry, offset) == sizeof entry && (entry & kPresent) == 0;
}

Status UserfaultMapper::protect(PageNumber first, uint64_t count, bool on) {
  uffdio_writeprotect change{};
  change.range.start = reinterpret_cast<uint64_t>(base_) + address_of(first).raw;
  change.range.len = count * kPageSize;
  change.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  while (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &change) < 0) {
    // EAGAIN: the address space is changing (another thread maps memory); nothing was done yet.
    if (errno != EAGAIN) return fail_errno(ErrorCode::kHost, errno, "UFFDIO_WRITEPROTECT of a view");
  }
  return {};
}

// In one call where the kernel has it (Linux 5.14), which costs a third of a fault for each page.
void UserfaultMapper::populate(PageNumber first, uint64_t count) const {
  auto* const begin = const_cast<uint8_t*>(populated_ + address_of(first).raw);
  if (count > 1 && ::madvise(begin, count * kPageSize, MADV_POPULATE_READ) == 0) return;
  for (uint64_t i = 0; i < count; ++i) (void)*static_cast<const volatile uint8_t*>(begin + i * kPageSize);
}

Status UserfaultMapper::map(PageNumber first, uint64_t count, bool writable) {
  // CONTINUE maps what is in the page cache: a page nobody has written yet must be brought there first.
  populate(first, count);
  const bool in_one = writable || continue_protected_;
  uint64_t start = reinterpret_cast<uint64_t>(base_) + address_of(first).raw;
  uint64_t left = count * kPageSize;
  while (left > 0) {
    uffdio_continue change{};
    change.range.start = start;
    change.range.len = left;
    change.mode = !writable && continue_protected_ ? UFFDIO_CONTINUE_MODE_WP : 0;
    if (::ioctl(fd_.get(), UFFDIO_CONTINUE, &change) == 0) break;
    if (errno != EAGAIN) return fail_errno(ErrorCode::kHost, errno, "UFFDIO_CONTINUE of a view");
    if (change.mapped > 0) {  // partly done
      start += static_cast<uint64_t>(change.mapped);
      left -= static_cast<uint64_t>(change.mapped);
    }
  }
  return in_one ? Status{} : protect(first, count, true);
}

Status UserfaultMapper::set(PageNumber first, uint64_t count, Right from, Right to) {
  if (from == to) return {};
  if (to == Right::kNone) {
    // A write-protected page would leave a marker that protects whatever is mapped there next: lift it first.
    if (from == Right::kRead) TRY(protect(first, count, false));
    if (::madvise(base_ + address_of(first).raw, count * kPageSize, MADV_DONTNEED) < 0)
      return fail_errno(ErrorCode::kHost, errno, "MADV_DONTNEED of a view");
    return {};
  }
  if (from == Right::kNone) return map(first, count, to == Right::kWrite);
  return protect(first, count, to == Right::kRead);
}

Result<std::unique_ptr<ept::PageMapper>> MprotectMapper::create(uint8_t* base, uint64_t bytes,
                                                                Right initial) {
  if (initial == Right::kNone && ::mprotect(base, bytes, PROT_NONE) < 0)
    return fail_errno(ErrorCode::kHost, errno, "mprotect of a view");
  return std::unique_ptr<ept::PageMapper>(new MprotectMapper(base));
}

Status MprotectMapper::set(PageNumber first, uint64_t count, Right /*from*/, Right to) {
  const int protection = to == Right::kNone   ? PROT_NONE
                         : to == Right::kRead ? PROT_READ
                                              : PROT_READ | PROT_WRITE;
  if (::mprotect(base_ + address_of(first).raw, count * kPageSize, protection) < 0)
    return fail_errno(ErrorCode::kHost, errno,
                      "mprotect of a view (if this says \"Cannot allocate memory\", raise vm.max_map_count)");
  return {};
}

}  // namespace reprise::vmm
