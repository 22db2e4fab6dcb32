#include "vmm/guest/linux/kernel_unpack.h"

#include <archive.h>
#include <archive_entry.h>

#include <cstring>
#include <memory>

#include "vmm/guest/elf_file.h"

namespace reprise::vmm {
namespace {

// Offsets in a bzImage. Source: boot.rst, "The Real-Mode Kernel Header".
constexpr uint64_t kSetupSectors = 0x1f1;
constexpr uint64_t kMagic = 0x202;
constexpr uint64_t kVersion = 0x206;
constexpr uint64_t kPayloadOffset = 0x248;
constexpr uint64_t kPayloadLength = 0x24c;
constexpr uint32_t kMagicValue = 0x53726448;  // "HdrS"
constexpr uint16_t kPayloadSince = 0x208;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxKernelBytes = 1ull << 30;

struct FreeArchive {
  void operator()(archive* a) const { archive_read_free(a); }
};

// `bytes` unpacked, which must give `size` bytes; what follows them is not looked at.
Result<std::vector<uint8_t>> unpack(Bytes bytes, uint64_t size) {
  const std::unique_ptr<archive, FreeArchive> reader(archive_read_new());
  // Those that libarchive has itself: for others it would start a program.
  archive_read_support_filter_gzip(reader.get());
  archive_read_support_filter_bzip2(reader.get());
  archive_read_support_filter_xz(reader.get());
  archive_read_support_filter_lzma(reader.get());
  archive_read_support_filter_lz4(reader.get());
  archive_read_support_filter_zstd(reader.get());
  archive_read_support_format_raw(reader.get());
  archive_entry* entry = nullptr;
  const auto failed = [&](const char* what) {
    const char* why = archive_error_string(reader.get());
    return bad_image("the kernel cannot be unpacked: {} ({})", what,
                     why != nullptr ? why : "no reason given");
  };
  if (archive_read_open_memory(reader.get(), bytes.data(), bytes.size()) != ARCHIVE_OK)
    return failed("its compression is not known");
  if (archive_read_next_header(reader.get(), &entry) != ARCHIVE_OK)
    return failed("its compression is not known");
  std::vector<uint8_t> unpacked(size);
  for (uint64_t done = 0; done < size;) {
    const auto got = archive_read_data(reader.get(), unpacked.data() + done, size - done);
    if (got < 0) return failed("it is damaged");
    if (got == 0)
      return bad_image("the kernel is truncated or damaged: {} of {} bytes could be unpacked", done, size);
    done += static_cast<uint64_t>(got);
  }
  return unpacked;
}

}  // namespace

Result<std::vector<uint8_t>> unpack_kernel(Bytes file) {
  const auto magic = slice(file, 0, SELFMAG);
  if (magic && std::memcmp(magic->data(), ELFMAG, SELFMAG) == 0)
    return std::vector<uint8_t>(file.begin(), file.end());
  if (get<uint32_t>(file, kMagic) != kMagicValue)
    return bad_image(
        "this is no Linux kernel: it is neither a bzImage (/boot/vmlinuz-...) nor an ELF file (vmlinux)");
  const auto version = get<uint16_t>(file, kVersion);
  const auto length = get<uint32_t>(file, kPayloadLength);
  if (!version || *version < kPayloadSince || !length)
    return bad_image("the kernel's boot protocol is older than 2.08 (Linux 2.6.26): use a newer kernel");
  // Boot loaders start memtest86+ and others by the same header, without anything that is packed.
  if (*length == 0)
    return bad_image("this is no Linux kernel: it has the header of a bzImage, but no kernel in it");
  const uint64_t sectors = file[kSetupSectors] == 0 ? 4 : file[kSetupSectors];
  const uint64_t start = (sectors + 1) * kSectorBytes + *get<uint32_t>(file, kPayloadOffset);
  const auto payload = slice(file, start, *length);
  // The last four bytes are the size of what is packed.
  const auto size = payload
                        ? get<uint32_t>(*payload, payload->size() - std::min<uint64_t>(4, payload->size()))
                        : std::nullopt;
  if (!size)
    return bad_image("the kernel is truncated: it has {} bytes and names {} from {:#x} on", file.size(),
                     *length, start);
  if (*size > kMaxKernelBytes)
    return bad_image("the kernel says it has {} MiB when unpacked: that cannot be", *size >> 20);
  // To gzip's output nothing was appended: it ends with its size by itself.
  const bool is_gzip = (*payload)[0] == 0x1f && (*payload)[1] == 0x8b;
  return unpack(is_gzip ? *payload : payload->first(payload->size() - 4), *size);
}

}  // namespace reprise::vmm
