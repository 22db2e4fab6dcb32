// How much memory the host can give, read from files like the kernel's.
#include "vmm/host/host_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "log/sample_recording.h"

namespace reprise::vmm {
namespace {

using testing::HasSubstr;
constexpr uint64_t kMiB = 1 << 20;

class HostMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    write("proc/meminfo", "MemTotal: 4096000 kB\nMemAvailable: 1048576 kB\nSwapFree: 0 kB\n");
  }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  HostMemory available() { return available_memory(root_ / "").value_or(HostMemory{}); }

  log::TemporaryFolder root_;
};

TEST_F(HostMemoryTest, AvailableAndSwapCount) {
  EXPECT_EQ(available().bytes, 1024 * kMiB);
  write("proc/meminfo", "MemAvailable: 1024 kB\nSwapFree: 2048 kB\n");
  EXPECT_EQ(available().bytes, 3 * kMiB);
  EXPECT_FALSE(available().limited);
}

TEST_F(HostMemoryTest, NothingIsKnownWithoutMeminfo) {
  write("proc/meminfo", "");
  EXPECT_FALSE(available_memory(root_ / ""));
  EXPECT_EQ(memory_warning(1ull << 40, std::nullopt), "");
}

TEST_F(HostMemoryTest, LimitOfTheGroupOrOneAboveItCounts) {
  write("proc/self/cgroup", "0::/outer/inner\n");
  write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  write("sys/fs/cgroup/outer/inner/memory.current", "1\n");
  EXPECT_EQ(available().bytes, 1024 * kMiB);
  write("sys/fs/cgroup/outer/memory.max", std::to_string(100 * kMiB));
  write("sys/fs/cgroup/outer/memory.current", std::to_string(60 * kMiB));
  EXPECT_EQ(available().bytes, 40 * kMiB);
  EXPECT_TRUE(available().limited);
}

TEST_F(HostMemoryTest, PageCacheOfTheGroupCanBeGivenUp) {
  write("proc/self/cgroup", "0::/g\n");
  write("sys/fs/cgroup/g/memory.max", std::to_string(100 * kMiB));
  write("sys/fs/cgroup/g/memory.current", std::to_string(100 * kMiB));
  write("sys/fs/cgroup/g/memory.stat", "anon 1\ninactive_file " + std::to_string(50 * kMiB) +
                                           "\nactive_file " + std::to_string(10 * kMiB) + "\n");
  EXPECT_EQ(available().bytes, 60 * kMiB);
}

TEST_F(HostMemoryTest, FirstVersionOfControlGroupsCounts) {
  write("proc/self/cgroup", "5:cpu:/x\n4:memory:/box\n");
  write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", std::to_string(64 * kMiB));
  write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", std::to_string(14 * kMiB));
  EXPECT_EQ(available().bytes, 50 * kMiB);
}

TEST_F(HostMemoryTest, WarningNamesBothSizesAndWhoLimits) {
  EXPECT_EQ(memory_warning(64 * kMiB, HostMemory{64 * kMiB, false}), "");
  EXPECT_THAT(memory_warning(65 * kMiB, HostMemory{64 * kMiB, false}),
              HasSubstr("the guest has 65 MiB of memory, this host can give 64 MiB"));
  EXPECT_THAT(memory_warning(65 * kMiB, HostMemory{64 * kMiB, true}), HasSubstr("control group"));
}

}  // namespace
}  // namespace reprise::vmm
