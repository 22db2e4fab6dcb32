// Images in formats of QEMU's, read by qemu-nbd, and what can be wrong with them.
#include "vmm/device/disk/disk_source.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/device/disk/kept_writes.h"

namespace reprise::vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using Bytes = std::vector<uint8_t>;

class DiskSourceTest : public ::testing::Test {
 protected:
  DiskSourceTest() {
    std::string name = ::testing::TempDir() + "disk-source-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~DiskSourceTest() override { std::filesystem::remove_all(folder_); }

  // A raw image of 1 MiB, no byte of which is like its neighbours.
  std::filesystem::path raw() {
    const auto path = folder_ / "raw";
    Bytes bytes(1 << 20);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 512);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  void shell(const std::string& command) {
    ASSERT_EQ(std::system(fmt::format("cd {} && {} >/dev/null", folder_.string(), command).c_str()), 0)
        << command;
  }
  static Bytes all_of(DiskSource& source) {
    Bytes bytes(source.bytes());
    EXPECT_TRUE(source.read(0, bytes));
    return bytes;
  }
  static Error refused(const std::filesystem::path& path, const std::string& format) {
    const auto opened = DiskSource::open(path, format);
    EXPECT_FALSE(opened.has_value());
    return opened ? Error{ErrorCode::kInternal, "", 0} : opened.error();
  }
  void overwrite(const char* name, off_t at, Bytes bytes) {
    const UniqueFd file(::open((folder_ / name).c_str(), O_WRONLY));
    ASSERT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), at), static_cast<ssize_t>(bytes.size()));
  }

  std::filesystem::path folder_;
};

TEST_F(DiskSourceTest, EveryFormatHasTheBytesOfTheRawImage) {
  const Bytes expected = all_of(*DiskSource::open(raw(), "").value());
  for (const std::string format : {"qcow2", "vmdk", "vdi"}) {
    shell(fmt::format("qemu-img convert -f raw -O {} raw {}", format, format));
    const auto source = DiskSource::open(folder_ / format, format);
    ASSERT_TRUE(source.has_value()) << source.error().message;
    EXPECT_EQ(all_of(**source), expected) << format;
    EXPECT_TRUE((*source)->check_unchanged());
  }
}

TEST_F(DiskSourceTest, BackingFilesAreReadAndWatched) {
  Bytes expected = all_of(*DiskSource::open(raw(), "raw").value());
  shell(
      "qemu-img create -q -f qcow2 -b raw -F raw middle && qemu-img create -q -f qcow2 -b middle -F qcow2 "
      "top");
  shell(
      "qemu-io -f qcow2 -c 'write -P 0x5a 65536 512' middle && qemu-io -f qcow2 -c 'write -P 0x5b 512 512' "
      "top");
  std::fill_n(expected.begin() + 65536, 512, uint8_t{0x5a});
  std::fill_n(expected.begin() + 512, 512, uint8_t{0x5b});
  const auto opened = DiskSource::open(folder_ / "top", "qcow2");
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  const auto& source = *opened;
  EXPECT_EQ(all_of(*source), expected);
  overwrite("raw", 0, {1});
  const Status changed = source->check_unchanged();
  ASSERT_FALSE(changed.has_value());
  EXPECT_THAT(changed.error().message, HasSubstr("raw was written while the guest ran"));
}

TEST_F(DiskSourceTest, KeptWritesAreAnImageBasedOnTheFirst) {
  const auto path = raw();
  Bytes expected = all_of(*DiskSource::open(path, "").value());
  const auto disk = DiskImage::open({.path = path}).value();
  ASSERT_TRUE(disk->write(5000, Bytes(10'000, 0xaa)));
  ASSERT_TRUE(disk->write((1 << 20) - 512, Bytes(512, 0xbb)));
  std::fill_n(expected.begin() + 5000, 10'000, uint8_t{0xaa});
  std::fill_n(expected.end() - 512, 512, uint8_t{0xbb});
  const Status kept = keep_writes(*disk, folder_ / "kept");
  ASSERT_TRUE(kept.has_value()) << kept.error().message;
  EXPECT_EQ(all_of(*DiskSource::open(folder_ / "kept", "qcow2").value()), expected);
  EXPECT_TRUE(disk->check_unchanged());
  const Status again = keep_writes(*disk, folder_ / "kept");
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, ErrorCode::kUsage);
}

TEST_F(DiskSourceTest, MissingBackingFileIsSaidInOneSentence) {
  raw();
  shell("qemu-img create -q -f qcow2 -b raw -F raw top");
  std::filesystem::remove(folder_ / "raw");
  const Error error = refused(folder_ / "top", "qcow2");
  EXPECT_EQ(error.code, ErrorCode::kHost);
  EXPECT_THAT(error.message, MatchesRegex("the disk image .*top cannot be used: .*No such file[^\n]*"));
}

TEST_F(DiskSourceTest, HeaderThatLiesIsRefusedOrFailsToRead) {
  raw();
  shell("qemu-img convert -f raw -O qcow2 raw good");
  struct Lie {
    const char* what;
    off_t at;
    Bytes bytes;
  };
  // Offsets: QEMU's docs/interop/qcow2.txt, "Header".
  const Lie lies[] = {{"version", 4, {0, 0, 0, 99}},
                      {"size", 24, Bytes(8, 0x7f)},
                      {"cluster bits", 20, {0, 0, 0, 63}},
                      {"table's size", 36, {0x7f, 0xff, 0xff, 0xff}},
                      {"table's place", 40, {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0}},
                      {"backing file", 8, {0, 0, 0, 0, 0x7f, 0, 0, 0}}};
  for (const Lie& lie : lies) {
    shell("cp good lies");
    overwrite("lies", lie.at, lie.bytes);
    const auto source = DiskSource::open(folder_ / "lies", "qcow2");
    if (!source) {
      EXPECT_THAT(source.error().message, MatchesRegex("the disk [^\n]*")) << lie.what;
      continue;
    }
    Bytes bytes((*source)->bytes());
    EXPECT_FALSE((*source)->read(0, bytes)) << lie.what;
  }
}

TEST_F(DiskSourceTest, OtherFormatIsRefused) {
  EXPECT_THAT(refused(raw(), "qcow2").message, HasSubstr("cannot be used"));
  EXPECT_THAT(refused(raw(), "nonsense").message, HasSubstr("cannot be used"));
  shell("qemu-img convert -f raw -O qcow2 raw good");
  const Error error = refused(folder_ / "good", "");
  EXPECT_EQ(error.code, ErrorCode::kUsage);
  EXPECT_THAT(error.message, HasSubstr("good,format=qcow2"));
  EXPECT_TRUE(DiskSource::open(folder_ / "good", "raw").has_value());
}

TEST_F(DiskSourceTest, MissingProgramIsNamed) {
  raw();
  shell("qemu-img convert -f raw -O qcow2 raw good");
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", folder_.c_str(), 1);
  const Error error = refused(folder_ / "good", "qcow2");
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(error.code, ErrorCode::kHost);
  EXPECT_THAT(error.message, HasSubstr("qemu-img is not here"));
}

// As QEMU locks the image of a machine that runs.
TEST_F(DiskSourceTest, ImageThatAnotherProgramMayWriteToIsInUse) {
  const auto path = raw();
  const UniqueFd writer(::open(path.c_str(), O_RDWR));
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 101;
  lock.l_len = 1;
  ASSERT_EQ(::fcntl(writer.get(), F_OFD_SETLK, &lock), 0);
  const Error error = refused(path, "raw");
  EXPECT_EQ(error.code, ErrorCode::kHost);
  EXPECT_THAT(error.message, HasSubstr("in use"));
}

}  // namespace
}  // namespace reprise::vmm
