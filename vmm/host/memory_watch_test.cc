// When a run is ended for want of memory, on files like the kernel's.
#include "vmm/host/memory_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "log/sample_recording.h"
#include "vmm/host/host_memory.h"

namespace reprise::vmm {
namespace {

using testing::HasSubstr;
constexpr uint64_t kSecond = 1'000'000'000;

class MemoryWatchTest : public testing::Test {
 protected:
  void available(uint64_t mib) {
    std::filesystem::create_directories(root_ / "proc");
    std::ofstream(root_ / "proc/meminfo") << "MemAvailable: " << mib * 1024 << " kB\nSwapFree: 0 kB\n";
  }

  log::TemporaryFolder root_;
};

TEST_F(MemoryWatchTest, RunEndsWhenNextToNothingIsLeft) {
  available(4096);
  MemoryWatch watch(root_ / "");
  EXPECT_EQ(watch.look(kSecond), std::nullopt);
  available(kLeastMemory >> 20);
  EXPECT_EQ(watch.look(2 * kSecond), std::nullopt);
  available((kLeastMemory >> 20) - 1);
  EXPECT_THAT(watch.look(2 * kSecond + 1).value_or(""), HasSubstr("this host is out of memory (47 MiB"));
}

TEST_F(MemoryWatchTest, WhereThereIsPlentyItLooksTwiceASecond) {
  available(4096);
  MemoryWatch watch(root_ / "");
  EXPECT_EQ(watch.look(kSecond), std::nullopt);
  available(1);
  EXPECT_EQ(watch.look(kSecond + 1), std::nullopt);
  EXPECT_NE(watch.look(kSecond + kSecond / 2), std::nullopt);
}

TEST_F(MemoryWatchTest, RunThatBeganWithLittleIsLeftAlone) {
  available(90);
  MemoryWatch watch(root_ / "");
  available(1);
  EXPECT_EQ(watch.look(kSecond), std::nullopt);
}

TEST_F(MemoryWatchTest, NothingIsKnownWithoutMeminfo) {
  MemoryWatch watch(root_ / "");
  EXPECT_EQ(watch.look(kSecond), std::nullopt);
}

}  // namespace
}  // namespace reprise::vmm
