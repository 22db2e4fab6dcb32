#include "log/sample_recording.h"

#include <stdlib.h>

#include <fstream>
#include <iterator>
#include <map>

#include "base/check.h"
#include "log/format.h"
#include "log/hash.h"

namespace reprise::log {
namespace {

// Appends events as a machine would, keeping positions, tickets and versions right.
class SampleMachine {
 public:
  SampleMachine(std::vector<std::vector<Event>>& logs) : logs_(logs), positions_(logs.size()) {}

  void gain(size_t vcpu, Right right, const std::vector<uint64_t>& pages) {
    Gain gain = {++ticket_, right, {}};
    for (const uint64_t page : pages) gain.pages.push_back({PageNumber(page), versions_[page]++});
    add(vcpu, std::move(gain));
  }
  void lose(size_t vcpu, Right left, uint64_t page) {
    add(vcpu, Loss{++ticket_, left, {PageNumber(page), versions_[page]++}});
  }
  template <typename What>
  void add(size_t vcpu, What what) {
    positions_[vcpu].stops += 1 + vcpu;
    positions_[vcpu].ticks.raw += 100 * (vcpu + 1) + ticket_.raw % 7;
    logs_[vcpu].push_back({positions_[vcpu], std::move(what)});
  }
  [[nodiscard]] Ticket ticket() const { return ticket_; }

 private:
  std::vector<std::vector<Event>>& logs_;
  std::vector<Position> positions_;
  std::map<uint64_t, uint32_t> versions_;
  Ticket ticket_;
};

void play(SampleMachine& machine, size_t vcpus, uint32_t rounds) {
  for (uint32_t round = 0; round < rounds; ++round) {
    for (size_t vcpu = 0; vcpu < vcpus; ++vcpu) {
      machine.gain(vcpu, Right::kWrite, {7, 8});
      machine.add(vcpu, Value{Source::kTime, 1000ull * round + vcpu});
      machine.add(vcpu, Digest{0x9e3779b97f4a7c15ull * (round * vcpus + vcpu + 1)});
      machine.add(vcpu, ApicMessage{ApicMessageKind::kFixed, static_cast<uint8_t>(32 + round % 200)});
      machine.lose(vcpu, Right::kRead, 7);
      machine.lose(vcpu, Right::kNone, 7);
      machine.lose(vcpu, Right::kNone, 8);
    }
    for (size_t vcpu = 0; vcpu < vcpus; ++vcpu) machine.gain(vcpu, Right::kRead, {9});
    for (size_t vcpu = 0; vcpu < vcpus; ++vcpu) machine.lose(vcpu, Right::kNone, 9);
  }
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "reprise-log-XXXXXX").string();
  REPRISE_CHECK(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

pb::Manifest sample_manifest(uint32_t vcpus) {
  pb::Manifest manifest;
  manifest.set_tool_version("0.1.0");
  manifest.set_vcpus(vcpus);
  manifest.set_memory_bytes(64 << 20);
  manifest.set_command_line("lost_update iterations=10");
  manifest.set_cpu_model("sample");
  manifest.set_mode("crew");
  manifest.set_digest_every(1);
  manifest.mutable_settings()->set_hold_us(50);
  pb::CpuidEntry& entry = *manifest.add_cpuid();
  entry.set_function(1);
  entry.set_eax(0x306a9);
  return manifest;
}

RecordingEditor sample_recording(uint32_t vcpus, uint32_t rounds) {
  RecordingEditor editor;
  editor.logs.resize(vcpus);
  SampleMachine machine(editor.logs);
  play(machine, vcpus, rounds);
  editor.console = "sum 10\n";
  editor.image = {0x7f, 'E', 'L', 'F', 2, 1, 1};
  editor.manifest = sample_manifest(vcpus);
  editor.manifest.set_format_version(kFormatVersion);
  editor.manifest.mutable_image()->set_file(std::string(kImageFile));
  editor.manifest.mutable_image()->set_size(editor.image.size());
  editor.manifest.mutable_image()->set_xxh3_128(xxh3_128_hex(editor.image));
  pb::Final& final = editor.final.emplace();
  final.set_reason(pb::REASON_GUEST_EXIT);
  final.set_console_bytes(editor.console.size());
  final.set_console_xxh3(xxh3_64(bytes_of(editor.console)));
  final.set_tickets(machine.ticket().raw);
  final.set_wall_nanoseconds(2'000'000'000);
  for (uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
    machine.add(vcpu, End{0x1111ull * (vcpu + 1)});
    final.add_register_digests(0x1111ull * (vcpu + 1));
  }
  return editor;
}

RecordingEditor sample_prefix(uint32_t vcpus, uint32_t rounds) {
  RecordingEditor editor = sample_recording(vcpus, rounds);
  editor.final.reset();
  for (std::vector<Event>& log : editor.logs) log.pop_back();
  return editor;
}

std::vector<uint8_t> read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_bytes(const std::filesystem::path& path, const std::vector<uint8_t>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  REPRISE_CHECK(file.good());
}

}  // namespace reprise::log
