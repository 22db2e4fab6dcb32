// The one description of a machine: what is possible, and what a recording may not say.
#include "vmm/record/machine_description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>

#include "log/sample_recording.h"
#include "vmm/guest/bare/pvh.h"
#include "vmm/guest/linux/linux.h"

namespace reprise::vmm {
namespace {

using log::pb::Manifest;
using testing::HasSubstr;

struct Impossible {
  const char* name;
  bool linux_guest;
  std::function<void(Manifest&)> change;
  const char* sentence;
};

std::ostream& operator<<(std::ostream& out, const Impossible& what) {
  return out << what.name;
}

const Impossible kImpossible[] = {
    {"NoVcpu", false, [](Manifest& m) { m.set_vcpus(0); }, "0 vCPUs"},
    {"TooManyVcpus", false, [](Manifest& m) { m.set_vcpus(kMaxVcpus + 1); }, "33 vCPUs"},
    {"TooManyVcpusForLinux", true, [](Manifest& m) { m.set_vcpus(kMaxLinuxVcpus + 1); }, "9 vCPUs"},
    {"NoMemory", false, [](Manifest& m) { m.set_memory_bytes(0); }, "0 bytes of memory"},
    {"PartOfAPage", false, [](Manifest& m) { m.set_memory_bytes(kMinRamBytes + 1); }, "whole pages"},
    {"MuchMemory", false, [](Manifest& m) { m.set_memory_bytes(kMaxRamBytes + kPageSize); },
     "bytes of memory"},
    {"AllMemory", false, [](Manifest& m) { m.set_memory_bytes(~0ull << kPageShift); }, "bytes of memory"},
    {"LittleMemoryForLinux", true, [](Manifest& m) { m.set_memory_bytes(1 << 20); }, "bytes of memory"},
    {"MuchMemoryForLinux", true, [](Manifest& m) { m.set_memory_bytes(1ull << 62); }, "bytes of memory"},
    {"PartOfAMiBForLinux", true, [](Manifest& m) { m.set_memory_bytes((64 << 20) + 4096); }, "whole MiB"},
    {"OtherMode", false, [](Manifest& m) { m.set_mode("both"); }, "mode \"both\""},
    {"NoMode", false, [](Manifest& m) { m.clear_mode(); }, "mode"},
    {"OtherClock", false, [](Manifest& m) { m.set_clock("sundial"); }, "clock \"sundial\""},
    {"KernelClockOfAnImage", false, [](Manifest& m) { m.set_clock("kernel"); }, "no clock \"kernel\""},
    {"SafepointsOfLinux", true, [](Manifest& m) { m.set_clock("safepoints"); },
     "use --clock kernel or stops"},
    {"BranchesOfLinux", true, [](Manifest& m) { m.set_clock("branches"); }, "use --clock kernel or stops"},
    {"BranchesInParallel", false, [](Manifest& m) { m.set_clock("branches"); }, "use --mode serial, or auto"},
    {"LinuxInParallel", true, [](Manifest& m) { m.set_mode("crew"); }, "no safepoints"},
    {"MemoryDigestsInParallel", false, [](Manifest& m) { m.set_memory_digest_every(1); },
     "--memory-digest-every.*--mode serial"},
    {"OtherBoot", false, [](Manifest& m) { m.set_boot("bios"); }, "\"bios\""},
    {"LongCommandLine", false, [](Manifest& m) { m.set_command_line(std::string(kMaxCommandLine + 1, 'x')); },
     "command line has"},
    {"LongCommandLineForLinux", true, [](Manifest& m) { m.set_command_line(std::string(2000, 'x')); },
     "command line has"},
    {"ZeroInTheCommandLine", false, [](Manifest& m) { m.set_command_line(std::string("a\0b", 3)); },
     "without a zero"},
    {"NoCpuid", false, [](Manifest& m) { m.clear_cpuid(); }, "0 CPUID entries"},
    {"ManyCpuidEntries", false,
     [](Manifest& m) {
       for (uint32_t i = 0; i < 100; ++i) m.add_cpuid()->set_function(0x1000 + i);
     },
     "CPUID entries"},
    {"CpuidLeafTwice", false, [](Manifest& m) { *m.add_cpuid() = m.cpuid(0); }, "twice"},
    {"CpuidFlags", false, [](Manifest& m) { m.mutable_cpuid(0)->set_flags(~0u); }, "flags"},
    {"NoFirstCpuidLeaf", false, [](Manifest& m) { m.mutable_cpuid(0)->set_function(0x999); }, "no leaf 0"},
    {"LinearAddressWidth", false,
     [](Manifest& m) {
       for (auto& entry : *m.mutable_cpuid())
         if (entry.function() == 0x80000008) entry.set_eax(0xff24);
     },
     "255 bits of linear address"},
    {"StartBefore1970", false, [](Manifest& m) { m.set_start_unix_seconds(-1); }, "starts -1 seconds"},
    {"StartBehindTheCalendar", true, [](Manifest& m) { m.set_start_unix_seconds(INT64_MAX); },
     "seconds after 1970"},
    {"DiskWithoutLinux", false, [](Manifest& m) { m.add_disks(); }, "only a Linux guest"},
    {"InitrdWithoutLinux", false, [](Manifest& m) { m.mutable_initrd(); }, "only a Linux guest"},
    {"VirtioWithoutLinux", false, [](Manifest& m) { m.add_virtio("rng"); }, "only a Linux guest"},
    {"FiveDisks", true,
     [](Manifest& m) {
       for (int i = 0; i < 5; ++i) m.add_disks();
     },
     "5 disks asked for"},
    {"OtherDiskFormat", true, [](Manifest& m) { m.add_disks()->set_format("nbd"); }, "format \"nbd\""},
    {"LongSerialNumber", true, [](Manifest& m) { m.add_disks()->set_serial(std::string(21, 'x')); },
     "serial number"},
    {"OtherVirtio", true, [](Manifest& m) { m.add_virtio("sound"); }, "\"sound\""},
    {"VirtioTwice", true, [](Manifest& m) { m.add_virtio("rng"); }, "twice"},
};

class MachineDescriptionTest : public testing::TestWithParam<Impossible> {};

TEST_P(MachineDescriptionTest, ImpossibleValueIsRefused) {
  Manifest description = new_description(GetParam().linux_guest);
  ASSERT_TRUE(check_description(description));
  GetParam().change(description);
  const Status checked = check_description(description);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kUsage);
  EXPECT_THAT(checked.error().message, testing::ContainsRegex(GetParam().sentence));
  EXPECT_FALSE(to_machine_options(description, {}));
}

INSTANTIATE_TEST_SUITE_P(All, MachineDescriptionTest, testing::ValuesIn(kImpossible),
                         [](const auto& info) { return info.param.name; });

// A recording of a Linux guest with a disk at `path`; what its kernel is does not matter.
log::RecordingEditor with_disk(const std::filesystem::path& path) {
  log::RecordingEditor editor = log::sample_recording(1, 1);
  const log::pb::Image image = editor.manifest.image();
  editor.manifest = new_description(true);
  editor.manifest.set_clock("stops");
  *editor.manifest.mutable_image() = image;
  auto& disk = *editor.manifest.add_disks();
  disk.set_original_path(path.string());
  disk.set_size(512);
  disk.set_xxh3_128(std::string(32, '0'));
  return editor;
}

Status checked(const log::RecordingEditor& editor, const std::filesystem::path& folder) {
  TRY(editor.save(folder));
  TRY_ASSIGN(const auto recording, log::Recording::open(folder));
  return check_recorded(recording);
}

TEST(RecordedDiskTest, FileOrNothingIsAccepted) {
  const log::TemporaryFolder folder;
  log::write_bytes(folder / "disk", std::vector<uint8_t>(512));
  EXPECT_TRUE(checked(with_disk(folder / "disk"), folder / "a"));
  EXPECT_TRUE(checked(with_disk(folder / "none"), folder / "b"));
}

TEST(RecordedDiskTest, DeviceFifoAndFolderAreDamage) {
  const log::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  int number = 0;
  for (const std::filesystem::path& path : {std::filesystem::path("/dev/zero"), folder / "fifo",
                                            std::filesystem::path("/"), std::filesystem::path("relative")}) {
    const Status refused = checked(with_disk(path), folder / std::to_string(number++));
    ASSERT_FALSE(refused) << path;
    EXPECT_EQ(refused.error().code, ErrorCode::kDamaged);
    EXPECT_THAT(refused.error().message, HasSubstr("disk"));
  }
}

TEST(RecordedDiskTest, ImpossibleSizeAndHashAreDamage) {
  const log::TemporaryFolder folder;
  log::RecordingEditor editor = with_disk(folder / "disk");
  editor.manifest.mutable_disks(0)->set_size(0);
  EXPECT_FALSE(checked(editor, folder / "a"));
  editor.manifest.mutable_disks(0)->set_size(513);
  EXPECT_FALSE(checked(editor, folder / "b"));
  editor.manifest.mutable_disks(0)->set_size(512);
  editor.manifest.mutable_disks(0)->set_xxh3_128("00");
  EXPECT_FALSE(checked(editor, folder / "c"));
}

TEST(CheckRecordedTest, RecordingThatDoesNotSayWhichClockIsDamage) {
  const log::TemporaryFolder folder;
  log::RecordingEditor editor = log::sample_recording(1, 1);
  const log::pb::Image image = editor.manifest.image();
  editor.manifest = new_description(false);
  *editor.manifest.mutable_image() = image;
  ASSERT_TRUE(editor.save(folder / "r"));
  const Status checked = check_recorded(log::Recording::open(folder / "r").value());
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message, testing::HasSubstr("does not say which clock"));
}

TEST(CheckLoadsTest, ImageThatDoesNotBootIsDamage) {
  const log::TemporaryFolder folder;
  log::RecordingEditor editor = log::sample_recording(1, 1);
  const log::pb::Image image = editor.manifest.image();
  editor.manifest = new_description(false);
  editor.manifest.set_clock("safepoints");
  *editor.manifest.mutable_image() = image;
  ASSERT_TRUE(editor.save(folder / "r"));
  const auto recording = log::Recording::open(folder / "r");
  ASSERT_TRUE(recording);
  EXPECT_TRUE(check_recorded(*recording));
  const Status loads = check_loads(*recording);
  ASSERT_FALSE(loads);
  EXPECT_EQ(loads.error().code, ErrorCode::kDamaged);
}

}  // namespace
}  // namespace reprise::vmm
