// forge: copies a recording with one thing changed and all sums valid, for tests of what replay finds.
//
//   forge FROM TO WHAT SEED
//   forge FROM TO WHAT NUMBER
//
// WHAT: ticket, gain-position, gain-page, loss-position, value, message-position, message-vector, digest,
// machine-digest, end (one event, chosen by SEED, so are vCPU and change), cpuid (the manifest asks for
// AVX-512); checkpoint-host, checkpoint-digest, checkpoint-console, checkpoint-state (FROM and TO are one
// file of a checkpoint; the last changes one byte of the registers, devices and journals in it). With a
// NUMBER, which may be impossible: last-ticket, last-page, final-tickets, final-console, final-digests,
// final-reason, memory, vcpus, start, command-line (its length), cpuids (how many more), mode, boot, virtio,
// image-bytes. Prints what it changed. Exit status: 0; 3 the recording has no such event; 1 any other
// failure.
#include <fmt/format.h>
#include <zstd.h>

#include <charconv>
#include <cstdio>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <string_view>

#include "log/event_text.h"
#include "log/recording_editor.h"
#include "log/sealed_file.h"

namespace reprise {
namespace {

constexpr int kNoSuchEvent = 3;

using Random = std::mt19937_64;

template <typename T>
T* part(log::Event& event) {
  return std::get_if<T>(&event.what);
}

// Forward or back by one to three, never below 0: near misses are what a lax check would let pass.
uint64_t near_miss(uint64_t number, Random& random) {
  const uint64_t step = 1 + random() % 3;
  return number >= step && random() % 2 == 0 ? number - step : number + step;
}

void move(Position& position, Random& random) {
  if (random() % 2 == 0)
    position.ticks = Ticks(near_miss(position.ticks.raw, random));
  else
    position.stops = near_miss(position.stops, random);
}

// Changes `event` if it is of the kind that `what` names.
bool change(log::Event& event, std::string_view what, Random& random) {
  auto* gain = part<log::Gain>(event);
  auto* loss = part<log::Loss>(event);
  auto* message = part<log::ApicMessage>(event);
  auto* input = part<log::Input>(event);
  if (what == "ticket" && (gain != nullptr || loss != nullptr)) {
    Ticket& ticket = gain != nullptr ? gain->ticket : loss->ticket;
    ticket = Ticket(near_miss(ticket.raw, random));
  } else if ((what == "gain-position" && gain != nullptr) || (what == "loss-position" && loss != nullptr) ||
             (what == "message-position" && message != nullptr) ||
             (what == "input-position" && input != nullptr)) {
    move(event.position, random);
  } else if (what == "gain-page" && gain != nullptr && gain->pages.size() == 1) {
    // With more pages, some are given without need, and another one would not matter.
    PageNumber& page = gain->pages.front().page;
    page = PageNumber(near_miss(page.raw, random));
  } else if (what == "input-byte" && input != nullptr && !input->bytes.empty()) {
    input->bytes[random() % input->bytes.size()] ^= 1;
  } else if (what == "message-vector" && message != nullptr &&
             message->kind == log::ApicMessageKind::kFixed) {
    message->vector ^= 1;
  } else if (auto* value = part<log::Value>(event); what == "value" && value != nullptr) {
    value->value ^= 1ull << (random() % 16);
  } else if (auto* digest = part<log::Digest>(event); what == "digest" && digest != nullptr) {
    digest->registers ^= 1ull << (random() % 64);
  } else if (auto* machine = part<log::MachineDigest>(event);
             what == "machine-digest" && machine != nullptr) {
    machine->machine ^= 1ull << (random() % 64);
  } else if (auto* end = part<log::End>(event); what == "end" && end != nullptr) {
    end->registers ^= 1ull << (random() % 64);
  } else {
    return false;
  }
  return true;
}

// Leaf 7 subleaf 0, EBX bit 16: AVX512F. Source: Intel SDM vol. 2A, CPUID.
bool change_cpuid(log::RecordingEditor& editor) {
  for (auto& entry : *editor.manifest.mutable_cpuid()) {
    if (entry.function() != 7 || entry.index() != 0) continue;
    entry.set_ebx(entry.ebx() | 1u << 16);
    return true;
  }
  return false;
}

bool change_event(log::RecordingEditor& editor, std::string_view what, Random& random) {
  struct Place {
    size_t vcpu, index;
  };
  std::vector<Place> places;
  for (size_t vcpu = 0; vcpu < editor.logs.size(); ++vcpu)
    for (size_t index = 0; index < editor.logs[vcpu].size(); ++index) {
      log::Event copy = editor.logs[vcpu][index];
      Random unused;
      if (change(copy, what, unused)) places.push_back({vcpu, index});
    }
  if (places.empty()) return false;
  const Place place = places[random() % places.size()];
  log::Event& event = editor.logs[place.vcpu][place.index];
  const std::string before = log::to_text(event);
  change(event, what, random);
  fmt::print("vCPU {} event {} of {}: {} -> {}\n", place.vcpu, place.index, editor.logs[place.vcpu].size(),
             before, log::to_text(event));
  return true;
}

// One byte of what the machine remembers becomes another one: not of its pages, which are any bytes anyway.
// `change` gets what the machine remembers, unpacked.
Status change_fields(log::pb::Checkpoint& checkpoint, const std::function<Status(std::string&)>& change) {
  std::string raw(checkpoint.state_bytes(), '\0');
  const std::string& packed = checkpoint.fields();
  if (ZSTD_isError(ZSTD_decompress(raw.data(), raw.size(), packed.data(), packed.size())) != 0)
    return fail(ErrorCode::kDamaged, "the checkpoint cannot be unpacked");
  TRY(change(raw));
  std::string again(ZSTD_compressBound(raw.size()), '\0');
  again.resize(ZSTD_compress(again.data(), again.size(), raw.data(), raw.size(), 1));
  checkpoint.set_fields(again);
  return {};
}

Status change_a_byte(std::string& raw, Random& random) {
  const size_t pages = raw.rfind("\x06memory");
  std::vector<size_t> places;
  for (size_t i = 0; i < pages; ++i)
    if (raw[i] != 0 || random() % 64 == 0) places.push_back(i);  // most are zeros of the order of pages
  const size_t at = places[random() % places.size()];
  const char before = raw[at];
  raw[at] = static_cast<char>(random() % 4 == 0 ? 0 : random());
  fmt::print("byte {} of {}: {:#x} -> {:#x}\n", at, pages, static_cast<uint8_t>(before),
             static_cast<uint8_t>(raw[at]));
  return {};
}

// As much more than was recorded as can be.
Status change_console(std::string& raw) {
  constexpr std::string_view kName = "console_bytes";
  const size_t name = raw.rfind(kName);
  if (name == std::string::npos || raw.size() - name < kName.size() + 16)
    return fail(ErrorCode::kDamaged, "the checkpoint does not say how long the console is");
  // The last of its eight bytes, which stand behind their number.
  const size_t value = raw.find('\x08', name + kName.size());
  raw[value + 2 * sizeof(uint64_t) - 1] = '\x7f';
  return {};
}

Status forge_checkpoint(const char* from, const char* to, std::string_view what, Random& random) {
  TRY_ASSIGN(const auto payload, log::read_sealed_file(from, log::kCheckpointMagic));
  log::pb::Checkpoint checkpoint;
  if (!checkpoint.ParseFromArray(payload.data(), static_cast<int>(payload.size())) ||
      checkpoint.host().facts_size() == 0)
    return fail(ErrorCode::kDamaged, "{} is no checkpoint", from);
  if (what == "checkpoint-host")
    checkpoint.mutable_host()->mutable_facts(0)->set_value("another");
  else if (what == "checkpoint-digest")
    checkpoint.set_digest(checkpoint.digest() ^ 1);
  else if (what == "checkpoint-console")
    TRY(change_fields(checkpoint, change_console));
  else
    TRY(change_fields(checkpoint, [&](std::string& raw) { return change_a_byte(raw, random); }));
  return log::write_sealed_file(to, log::kCheckpointMagic, checkpoint.SerializeAsString());
}

// Values that no recorder writes. False: `what` is another kind of change.
bool change_number(log::RecordingEditor& editor, std::string_view what, uint64_t number) {
  using Change = std::function<void()>;
  auto& manifest = editor.manifest;
  const auto last = [&](auto change) {
    for (auto& log : editor.logs)
      for (auto event = log.rbegin(); event != log.rend(); ++event)
        if (change(*event)) return;
  };
  const std::map<std::string_view, Change> changes = {
      {"last-ticket",
       [&] {
         last([&](log::Event& event) {
           if (auto* gain = part<log::Gain>(event)) return gain->ticket = Ticket(number), true;
           if (auto* loss = part<log::Loss>(event)) return loss->ticket = Ticket(number), true;
           return false;
         });
       }},
      {"last-page",
       [&] {
         last([&](log::Event& event) {
           auto* gain = part<log::Gain>(event);
           return gain != nullptr && (gain->pages.front().page = PageNumber(number), true);
         });
       }},
      {"final-tickets", [&] { editor.final->set_tickets(number); }},
      {"final-console", [&] { editor.final->set_console_bytes(number); }},
      {"final-digests", [&] { editor.final->add_register_digests(number); }},
      {"final-reason", [&] { editor.final->set_reason(static_cast<log::pb::Reason>(number)); }},
      {"memory", [&] { manifest.set_memory_bytes(number); }},
      {"vcpus", [&] { manifest.set_vcpus(static_cast<uint32_t>(number)); }},
      {"start", [&] { manifest.set_start_unix_seconds(static_cast<int64_t>(number)); }},
      {"command-line", [&] { manifest.set_command_line(std::string(number, 'x')); }},
      {"cpuids",
       [&] {
         for (uint32_t i = 0; i < number; ++i) manifest.add_cpuid()->set_function(0x1000 + i);
       }},
      {"mode", [&] { manifest.set_mode(std::to_string(number)); }},
      {"boot", [&] { manifest.set_boot(number == 0 ? "linux" : std::to_string(number)); }},
      {"virtio", [&] { manifest.add_virtio(std::to_string(number)); }},
      {"image-bytes", [&] { manifest.mutable_image()->set_size(number); }},
  };
  const auto found = changes.find(what);
  if (found != changes.end()) found->second();
  return found != changes.end();
}

int forge(const char* from, const char* to, std::string_view what, uint64_t seed) {
  Random random(seed);
  if (what.starts_with("checkpoint-")) {
    const Status forged = forge_checkpoint(from, to, what, random);
    if (!forged) fmt::print(stderr, "forge: {}\n", forged.error().message);
    return forged ? 0 : 1;
  }
  auto editor = log::RecordingEditor::open(from);
  if (!editor) {
    fmt::print(stderr, "forge: {}\n", editor.error().message);
    return 1;
  }
  const bool changed = change_number(*editor, what, seed) ||
                       (what == "cpuid" ? change_cpuid(*editor) : change_event(*editor, what, random));
  if (!changed) return kNoSuchEvent;
  if (const auto saved = editor->save(to); !saved) {
    fmt::print(stderr, "forge: {}\n", saved.error().message);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace reprise

int main(int argc, char** argv) {
  uint64_t seed = 0;
  if (argc == 5) {
    const std::string_view text(argv[4]);
    if (std::from_chars(text.data(), text.data() + text.size(), seed).ec == std::errc{})
      return reprise::forge(argv[1], argv[2], argv[3], seed);
  }
  fmt::print(stderr, "usage: forge FROM TO WHAT SEED|NUMBER\n");
  return 1;
}
