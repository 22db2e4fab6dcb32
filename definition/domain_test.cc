// libvirt's definitions: what each of the corpus means, and that what is written reads the same.
#include "definition/domain.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "vmm/record/machine_description.h"

namespace reprise::definition {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A verdict as the .expected files of the corpus hold it.
std::string as_text(const Verdict& verdict) {
  if (const auto* refusal = std::get_if<Refusal>(&verdict)) return sentence(*refusal) + "\n";
  const auto& domain = std::get<Domain>(verdict);
  const auto& machine = domain.machine;
  std::string text =
      fmt::format("{}: {} vCPUs, {} MiB\n", domain.name, machine.vcpus(), machine.memory_bytes() >> 20);
  text += domain.boots_from_disk() ? "boots from its disk\n"
                                   : fmt::format("kernel {}\n", machine.image().original_path());
  if (machine.has_initrd()) text += fmt::format("initrd {}\n", machine.initrd().original_path());
  if (!machine.command_line().empty()) text += fmt::format("command line {}\n", machine.command_line());
  for (const auto& disk : machine.disks())
    text += fmt::format("disk {} {}{}{}\n", disk.format().empty() ? "raw" : disk.format(),
                        disk.original_path(), disk.read_only() ? ", read-only" : "",
                        disk.serial().empty() ? "" : ", serial number " + disk.serial());
  text += fmt::format("virtio {}\n", fmt::join(machine.virtio(), " "));
  text += fmt::format("without {}\n", fmt::join(domain.left_out, " "));
  for (const auto& remark : domain.remarks) text += remark + "\n";
  return text;
}

TEST(Corpus, EachDefinitionMeansWhatIsWrittenBesideIt) {
  size_t definitions = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CORPUS)) {
    if (entry.path().extension() != ".xml") continue;
    ++definitions;
    const auto verdict = read_domain(read_text(entry.path()));
    const std::string found = verdict ? as_text(*verdict) : verdict.error().message + "\n";
    auto expected = entry.path();
    EXPECT_EQ(read_text(expected.replace_extension(".expected")), found) << entry.path();
  }
  EXPECT_GE(definitions, 25u);
}

// A definition with `more` in <domain>, and with these devices.
std::string definition(std::string_view more, std::string_view devices = "") {
  return fmt::format(
      "<domain type='kvm'><name>tried</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>"
      "<os><type arch='x86_64'>hvm</type><kernel>/k</kernel></os>{}<devices>{}</devices></domain>",
      more, devices);
}

Domain accepted(std::string_view xml, const Reading& reading = {}) {
  const auto verdict = read_domain(xml, reading);
  EXPECT_TRUE(verdict.has_value());
  if (!verdict) return {};
  const auto* domain = std::get_if<Domain>(&*verdict);
  EXPECT_NE(domain, nullptr) << sentence(std::get<Refusal>(*verdict));
  return domain != nullptr ? *domain : Domain();
}

std::string refused(std::string_view xml, const Reading& reading = {}) {
  const auto verdict = read_domain(xml, reading);
  if (!verdict) return verdict.error().message;
  const auto* refusal = std::get_if<Refusal>(&*verdict);
  EXPECT_NE(refusal, nullptr);
  return refusal != nullptr ? sentence(*refusal) : "";
}

TEST(ReadDomain, WhatIsNoDefinitionIsDamage) {
  for (const std::string_view xml :
       {"", "no XML", "<domain>", "<network/>", "<domain type='kvm'></domian>"}) {
    const auto verdict = read_domain(xml);
    ASSERT_FALSE(verdict.has_value()) << xml;
    EXPECT_EQ(verdict.error().code, ErrorCode::kDamaged) << xml;
  }
}

TEST(ReadDomain, MemoryHasLibvirtsUnitsAndIsRoundedUp) {
  const auto mib = [](std::string_view memory) {
    return accepted(fmt::format("<domain type='kvm'><os><type>hvm</type><kernel>/k</kernel></os>{}</domain>",
                                memory))
               .machine.memory_bytes() >>
           20;
  };
  EXPECT_EQ(mib("<memory>131072</memory>"), 128u);
  EXPECT_EQ(mib("<memory unit='bytes'>134217728</memory>"), 128u);
  EXPECT_EQ(mib("<memory unit='MB'>128</memory>"), 123u);
  EXPECT_EQ(mib("<memory unit='G'> 2 </memory>"), 2048u);
  EXPECT_EQ(mib("<memory unit='KiB'>131073</memory>"), 129u);
}

TEST(ReadDomain, ImpossibleNumbersAreRefusedByElement) {
  EXPECT_THAT(refused(definition("<memory unit='PiB'>1</memory>")), HasSubstr("memory is not possible"));
  EXPECT_THAT(refused(definition("<memory unit='TiB'>18446744073709551615</memory>")),
              HasSubstr("memory is not possible"));
  EXPECT_THAT(refused(definition("<memory>-1</memory>")), HasSubstr("memory is not possible"));
  EXPECT_THAT(refused(definition("<vcpu>9</vcpu>")), HasSubstr("vcpu is not possible: 9 vCPUs"));
  EXPECT_THAT(refused(definition("<vcpu>many</vcpu>")), HasSubstr("vcpu is no number"));
  EXPECT_THAT(refused(definition("<clock offset='absolute' start='-5'/>")),
              HasSubstr("clock is not possible"));
}

TEST(ReadDomain, CurrentVcpusCount) {
  EXPECT_EQ(accepted(definition("<vcpu current='3'>64</vcpu>")).machine.vcpus(), 3u);
}

TEST(ReadDomain, ReplacedElementsAreNotRead) {
  EXPECT_EQ(accepted(definition("<vcpu>99</vcpu>"), {.replaced = {"vcpu"}}).machine.vcpus(), 1u);
}

TEST(ReadDomain, DevicesCanBeLeftOutByName) {
  const std::string xml =
      definition("<launchSecurity type='sev'/>", "<hostdev/><hostdev/><tpm/><frobnicator/>");
  EXPECT_THAT(refused(xml),
              HasSubstr("(--ignore-devices launchSecurity,hostdev,tpm,frobnicator goes on without)"));
  EXPECT_THAT(refused(xml, {.without = {"launchSecurity", "hostdev", "frobnicator"}}),
              HasSubstr("recorded: tpm is a TPM"));
  EXPECT_THAT(accepted(xml, {.without = {"launchSecurity", "hostdev", "tpm", "frobnicator"}}).left_out,
              ElementsAre("frobnicator", "hostdev", "launchSecurity", "tpm"));
}

TEST(ReadDomain, WhatTheMachineIsCannotBeLeftOut) {
  EXPECT_THAT(
      refused("<domain type='xen'><os><type arch='aarch64'>hvm</type><kernel>/k</kernel></os></domain>",
              {.without = {"domain", "type"}}),
      testing::AllOf(HasSubstr("domain has the type \"xen\""),
                     HasSubstr("type says the architecture aarch64"),
                     testing::Not(HasSubstr("--ignore-devices"))));
  EXPECT_THAT(refused("<domain type='kvm'><os><type>hvm</type></os></domain>"),
              HasSubstr("os names no kernel"));
}

TEST(ReadDomain, KeysGoWhereTheKernelIsToldLast) {
  const auto virtio = [](std::string_view command_line, std::string_view devices) {
    return accepted(fmt::format(
                        "<domain type='kvm'><os><type>hvm</type><kernel>/k</kernel><cmdline>{}</cmdline></os>"
                        "<devices>{}</devices></domain>",
                        command_line, devices))
               .machine.virtio_size() == 1;
  };
  constexpr std::string_view kVirtio = "<console><target type='virtio'/></console>";
  const std::string both = "<serial/>" + std::string(kVirtio);
  EXPECT_TRUE(virtio("", kVirtio));
  EXPECT_FALSE(virtio("", both));
  EXPECT_TRUE(virtio("console=ttyS0 console=hvc0", both));
  EXPECT_FALSE(virtio("console=hvc0 console=ttyS0,115200 quiet", both));
  EXPECT_FALSE(virtio("console=hvc0", "<console/>"));
}

// --- and back ---

Domain read_back(const log::pb::Manifest& machine) {
  const auto xml = write_domain(machine, "a name");
  EXPECT_TRUE(xml.has_value());
  return xml ? accepted(*xml) : Domain();
}

TEST(WriteDomain, ReadsAsTheSameMachine) {
  log::pb::Manifest machine = vmm::new_description(true);
  machine.set_vcpus(3);
  machine.set_memory_bytes(512 << 20);
  machine.set_start_unix_seconds(1'000'000'000);
  machine.mutable_image()->set_original_path("/boot/a kernel & <more>");
  machine.mutable_initrd()->set_original_path("/boot/initrd \xc3\xa4");
  machine.set_command_line("root=/dev/vda init='a b' \"quoted\"");
  auto& disk = *machine.add_disks();
  disk.set_original_path("/disks/root");
  disk.set_format("raw");
  auto& other = *machine.add_disks();
  other.set_original_path("/disks/data");
  other.set_format("qcow2");
  other.set_serial("DATA & more");
  other.set_read_only(true);
  other.set_can_discard(true);
  const Domain domain = read_back(machine);
  EXPECT_EQ(domain.name, "a name");
  EXPECT_THAT(domain.remarks, IsEmpty());
  google::protobuf::util::MessageDifferencer differ;
  std::string difference;
  differ.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differ.Compare(machine, domain.machine)) << difference;
}

TEST(WriteDomain, EveryConsoleAndAbsenceReadsBack) {
  for (const bool random : {false, true})
    for (const bool console : {false, true}) {
      log::pb::Manifest machine = vmm::new_description(true);
      machine.mutable_image()->set_original_path("/k");
      machine.clear_virtio();
      if (random) machine.add_virtio("rng");
      if (console) machine.add_virtio("console");
      EXPECT_THAT(read_back(machine).machine.virtio(), testing::UnorderedElementsAreArray(machine.virtio()));
    }
}

TEST(WriteDomain, AcceptedDefinitionsOfTheCorpusReadBack) {
  for (const auto& entry : std::filesystem::directory_iterator(CORPUS)) {
    if (entry.path().extension() != ".xml") continue;
    const auto verdict = read_domain(read_text(entry.path()));
    const auto* domain = verdict ? std::get_if<Domain>(&*verdict) : nullptr;
    if (domain == nullptr || domain->boots_from_disk()) continue;
    const Domain again = read_back(domain->machine);
    google::protobuf::util::MessageDifferencer differ;
    std::string difference;
    differ.ReportDifferencesToString(&difference);
    EXPECT_TRUE(differ.Compare(domain->machine, again.machine)) << entry.path() << difference;
  }
}

TEST(WriteDomain, WhatXmlCannotHoldIsRefused) {
  log::pb::Manifest machine = vmm::new_description(true);
  machine.mutable_image()->set_original_path("/k");
  machine.set_command_line("a\x01b");
  EXPECT_EQ(write_domain(machine, "x").error().code, ErrorCode::kUsage);
  machine.set_command_line("\xff");
  EXPECT_EQ(write_domain(machine, "x").error().code, ErrorCode::kUsage);
  EXPECT_EQ(write_domain(vmm::new_description(false), "x").error().code, ErrorCode::kUsage);
}

}  // namespace
}  // namespace reprise::definition
