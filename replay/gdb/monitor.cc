#include "replay/gdb/monitor.h"

#include <charconv>
#include <sstream>

#include "replay/gdb/core_file.h"
#include "vmm/kvm/cpu_state.h"

namespace reprise::replay::gdb {
namespace {

constexpr uint32_t kLogEvents = 20;
constexpr uint32_t kTransitions = 100;
constexpr uint32_t kWriters = 10;
constexpr uint32_t kPages = 10;
constexpr uint32_t kMaxCount = 100'000;  // of lines
constexpr size_t kPhysicalBytes = 64;
constexpr size_t kMaxPhysicalBytes = 4096;
constexpr size_t kBytesPerLine = 16;

// GDB keeps what it read until the machine runs; nothing in its protocol tells it that the machine was moved.
constexpr std::string_view kStale =
    "GDB still shows what it read before. To see the new place: maintenance flush register-cache, "
    "maintenance flush dcache,\n"
    "or go there with 'starti MARK' (target extended-remote).\n";

// Decimal, or hexadecimal with 0x.
Result<uint64_t> parse_number(std::string_view text) {
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = text.substr(hexadecimal ? 2 : 0);
  uint64_t number = 0;
  const auto [rest, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, hexadecimal ? 16 : 10);
  if (error != std::errc() || rest != digits.data() + digits.size())
    return fail(ErrorCode::kUsage, "'{}' is no number; give 123 or 0x7b", text);
  return number;
}

Result<uint64_t> parse_number(std::string_view text, uint64_t most) {
  TRY_ASSIGN(const uint64_t number, parse_number(text));
  if (number == 0 || number > most)
    return fail(ErrorCode::kUsage, "'{}' is not between 1 and {}", text, most);
  return number;
}

}  // namespace

const std::vector<Monitor::Command>& Monitor::commands() {
  static const std::vector<Command> commands = {
      {"help", "", 0, 0, "these lines", &Monitor::help},
      {"when", "", 0, 0, "the mark of this moment, and the first and the last one", &Monitor::when},
      {"seek", "MARK", 1, 1, "go to a mark; also 'begin', 'end', 'cN' for checkpoint N", &Monitor::seek},
      {"checkpoint", "", 0, 0, "keep this moment, to be back at once", &Monitor::checkpoint},
      {"checkpoints", "", 0, 0, "those that were kept, here or beside the recording", &Monitor::checkpoints},
      {"restart", "N", 1, 1, "go to checkpoint N", &Monitor::restart},
      {"vcpus", "", 0, 0, "what each vCPU does", &Monitor::vcpus},
      {"owners", "ADDRESS", 1, 1, "who may read or write the page now", &Monitor::owners},
      {"history", "ADDRESS [COUNT]", 1, 2, "who held the page when, the last times before now",
       &Monitor::history},
      {"writers", "ADDRESS [COUNT]", 1, 2, "who could write to the page, the last times before now",
       &Monitor::writers},
      {"transfers", "[COUNT]", 0, 1, "how often pages went from which vCPU to which, up to now",
       &Monitor::transfers},
      {"who-wrote", "ADDRESS", 1, 1, "the last write to the byte before now", &Monitor::who_wrote},
      {"physical", "ADDRESS [BYTES]", 1, 2, "bytes of guest-physical memory", &Monitor::physical},
      {"core", "[FILE]", 0, 1, "the machine as a core file, 'core' if no name is given", &Monitor::core},
      {"log", "[COUNT]", 0, 1, "recorded events around now", &Monitor::log},
      {"digest", "", 0, 0, "of registers, memory and devices now", &Monitor::digest},
      {"diversion", "begin|end", 1, 1, "a throw-away copy of the machine that may be changed",
       &Monitor::diversion},
      {"info", "version", 1, 1, "what this is", &Monitor::info},
  };
  return commands;
}

std::string Monitor::run(std::string_view line, VcpuId vcpu) {
  vcpu_ = vcpu;
  std::istringstream stream{std::string(line)};
  std::string name = "help";
  stream >> name;
  Words words;
  for (std::string word; stream >> word;) words.push_back(word);
  for (const Command& command : commands()) {
    if (command.name != name) continue;
    if (words.size() < command.least || words.size() > command.most)
      return fmt::format("use: monitor {} {}\n", command.name, command.arguments);
    const auto text = (this->*command.run)(words);
    return text ? *text : text.error().message + "\n";
  }
  return fmt::format("there is no command '{}'; 'monitor help' lists those that are\n", name);
}

Result<std::string> Monitor::help(const Words& /*words*/) {
  std::string text;
  for (const Command& command : commands())
    text += fmt::format("{:<28}{}\n", fmt::format("{} {}", command.name, command.arguments), command.help);
  return text + "An ADDRESS is virtual, as the selected thread sees it; phys:ADDRESS is guest-physical.\n";
}

Result<std::string> Monitor::when(const Words& /*words*/) {
  return fmt::format("{}{}; the recording goes from {} to {}\n", to_text(target_.now()),
                     target_.in_diversion() ? ", in a diversion" : "", to_text(target_.begin()),
                     to_text(target_.end()));
}

Result<Mark> Monitor::find_mark(std::string_view text) const {
  if (text == "begin") return target_.begin();
  if (text == "end") return target_.end();
  if (!text.starts_with('c')) return parse_mark(text);
  TRY_ASSIGN(const uint64_t number, parse_number(text.substr(1)));
  for (const Checkpoint& checkpoint : target_.checkpoints())
    if (checkpoint.number == number) return checkpoint.mark;
  return fail(ErrorCode::kNotFound, "there is no checkpoint {}; 'monitor checkpoints' lists those that are",
              number);
}

Result<std::string> Monitor::go_to(const Mark& mark) {
  TRY(target_.seek(mark, interruption_));
  return fmt::format("now at {}\n{}", to_text(target_.now()), kStale);
}

Result<std::string> Monitor::seek(const Words& words) {
  TRY_ASSIGN(const Mark mark, find_mark(words[0]));
  return go_to(mark);
}

Result<std::string> Monitor::checkpoint(const Words& /*words*/) {
  TRY_ASSIGN(const Checkpoint made, target_.make_checkpoint());
  return fmt::format("checkpoint {} at {}\n", made.number, to_text(made.mark));
}

Result<std::string> Monitor::checkpoints(const Words& /*words*/) {
  std::string text;
  for (const Checkpoint& checkpoint : target_.checkpoints())
    text += fmt::format("{:<6}{}\n", checkpoint.number, to_text(checkpoint.mark));
  return text.empty() ? "none; 'monitor checkpoint' makes one\n" : text;
}

Result<std::string> Monitor::restart(const Words& words) {
  TRY_ASSIGN(const Mark mark, find_mark("c" + words[0]));
  return go_to(mark);
}

Result<std::string> Monitor::vcpus(const Words& /*words*/) {
  std::string text;
  for (VcpuId vcpu; vcpu.raw < target_.vcpu_count(); ++vcpu) {
    TRY_ASSIGN(const Registers registers, target_.registers(vcpu));
    text +=
        fmt::format("{} thread {}: vCPU {}, rip {:#x}, CPL {}, {}\n", vcpu == vcpu_ ? '*' : ' ', vcpu.raw + 1,
                    vcpu.raw, registers.general.rip, registers.special.ss.dpl, target_.vcpu_state(vcpu));
  }
  return text;
}

Result<Gpa> Monitor::find_address(const std::string& text) const {
  constexpr std::string_view kPhysical = "phys:";
  const bool is_physical = text.starts_with(kPhysical);
  TRY_ASSIGN(const uint64_t address,
             parse_number(std::string_view(text).substr(is_physical ? kPhysical.size() : 0)));
  if (is_physical) return Gpa(address);
  if (const auto gpa = target_.translate(vcpu_, Gva(address))) return *gpa;
  return fail(ErrorCode::kNotFound, "{:#x} is not mapped in the page tables of vCPU {}", address, vcpu_.raw);
}

Result<uint32_t> Monitor::find_count(const Words& words, size_t index, uint32_t otherwise) {
  if (words.size() <= index) return otherwise;
  TRY_ASSIGN(const uint64_t count, parse_number(words[index], kMaxCount));
  return static_cast<uint32_t>(count);
}

Result<std::string> Monitor::owners(const Words& words) {
  TRY_ASSIGN(const Gpa address, find_address(words[0]));
  const PageNumber page = page_of(address);
  const auto rights = target_.rights(page);
  if (!rights.has_value()) return fmt::format("page {:#x}: each vCPU has its own\n", page.raw);
  std::string text;
  for (size_t vcpu = 0; vcpu < rights->size(); ++vcpu)
    if ((*rights)[vcpu] != Right::kNone)
      text += fmt::format("page {:#x}: vCPU {} may {} it\n", page.raw, vcpu,
                          (*rights)[vcpu] == Right::kWrite ? "write" : "read");
  return text.empty() ? fmt::format("page {:#x}: nobody\n", page.raw) : text;
}

Result<std::string> Monitor::history(const Words& words) {
  TRY_ASSIGN(const Gpa address, find_address(words[0]));
  TRY_ASSIGN(const uint32_t count, find_count(words, 1, kTransitions));
  return answers_.history(page_of(address), target_.now(), count);
}

Result<std::string> Monitor::writers(const Words& words) {
  TRY_ASSIGN(const Gpa address, find_address(words[0]));
  TRY_ASSIGN(const uint32_t count, find_count(words, 1, kWriters));
  return answers_.writers(page_of(address), target_.now(), count);
}

Result<std::string> Monitor::transfers(const Words& words) {
  TRY_ASSIGN(const uint32_t count, find_count(words, 0, kPages));
  return answers_.transfers(target_.now(), count);
}

Result<std::string> Monitor::who_wrote(const Words& words) {
  TRY_ASSIGN(const Gpa address, find_address(words[0]));
  TRY_ASSIGN(const auto last, target_.last_write(address, interruption_));
  if (!last.has_value()) return fmt::format("nobody has written {:#x} since the beginning\n", address.raw);
  if (last->by_device)
    return fmt::format("a device wrote it at {}, for vCPU {}, which stood at {:#x}\n", to_text(last->mark),
                       last->vcpu.raw, last->rip.raw);
  return fmt::format("vCPU {} wrote it at {}, by the instruction at {:#x}\n", last->vcpu.raw,
                     to_text(last->mark), last->rip.raw);
}

Result<std::string> Monitor::physical(const Words& words) {
  TRY_ASSIGN(const uint64_t address, parse_number(words[0]));
  uint64_t bytes = kPhysicalBytes;
  if (words.size() > 1) {
    TRY_ASSIGN(bytes, parse_number(words[1], kMaxPhysicalBytes));
  }
  std::vector<uint8_t> data(bytes);
  data.resize(target_.read_physical(vcpu_, Gpa(address), data));
  if (data.empty()) return fail(ErrorCode::kNotFound, "{:#x} is not RAM", address);
  std::string text;
  for (size_t at = 0; at < data.size(); at += kBytesPerLine) {
    const auto line = std::span(data).subspan(at, std::min(kBytesPerLine, data.size() - at));
    text += fmt::format("{:#014x}: {:02x}\n", address + at, fmt::join(line, " "));
  }
  return text;
}

Result<std::string> Monitor::core(const Words& words) {
  const std::string path = words.empty() ? "core" : words[0];
  TRY_ASSIGN(const CoreContent content, write_core_file(target_, vcpu_, path));
  return fmt::format(
      "{}: {} vCPUs, {} KiB in {} ranges of the addresses that vCPU {} maps{}\n", path, target_.vcpu_count(),
      content.mapped_bytes >> 10, content.ranges, vcpu_.raw,
      content.is_whole ? "" : "; those are as many as a core file can have, and there are more");
}

Result<std::string> Monitor::log(const Words& words) {
  TRY_ASSIGN(const uint32_t count, find_count(words, 0, kLogEvents));
  return answers_.log(target_.now(), count);
}

Result<std::string> Monitor::digest(const Words& /*words*/) {
  TRY_ASSIGN(const uint64_t digest, target_.digest());
  return fmt::format("{:016x}\n", digest);
}

Result<std::string> Monitor::diversion(const Words& words) {
  if (words[0] == "begin") {
    TRY(target_.begin_diversion());
    return "registers and memory may be changed now; 'monitor diversion end' throws the changes away\n";
  }
  if (words[0] != "end") return fail(ErrorCode::kUsage, "use: monitor diversion begin|end");
  if (!target_.in_diversion()) return fail(ErrorCode::kUsage, "there is no diversion");
  TRY(target_.end_diversion());
  return fmt::format("back at {}\n{}", to_text(target_.now()), kStale);
}

// GDB scripts that serve several stubs ask so for QEMU's, and one that answers has CPUs for threads.
// Source: Linux, scripts/gdb/linux/utils.py, get_gdbserver_type().
Result<std::string> Monitor::info(const Words& words) {
  if (words[0] != "version") return fail(ErrorCode::kUsage, "use: monitor info version");
  return "Reprise, a replay; threads are vCPUs\n";
}

}  // namespace reprise::replay::gdb
