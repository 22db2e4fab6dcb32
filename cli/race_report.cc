#include "cli/race_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "cli/output.h"

namespace reprise::cli {
namespace {

constexpr std::string_view kRule = "==================================================================\n";

std::string name_of(const std::vector<analysis::CodeFrame>& frames, Gva rip) {
  return frames.empty() || frames.front().function.empty() ? fmt::format("{:#x}", rip.raw)
                                                           : frames.front().function;
}

std::string place_of(const analysis::CodeFrame& frame) {
  return frame.file.empty() ? std::string() : fmt::format(" {}:{}", frame.file, frame.line);
}

std::string kind_of(const replay::MemoryAccess& access) {
  if (access.locked) return "atomic write";
  return access.writes ? access.reads ? "read-write" : "write" : "read";
}

std::string text_of_access(const analysis::RacingAccess& racing, const std::string& folder) {
  const replay::MemoryAccess& access = racing.access;
  std::string text =
      fmt::format("{} to {:#x}{} of {} by vCPU {} at {}:\n", kind_of(access),
                  access.linear.raw != 0 ? access.linear.raw : access.start.raw,
                  racing.object.empty() ? "" : fmt::format(" ({})", printable(racing.object)),
                  counted(access.bytes, "byte"), access.vcpu.raw, replay::to_text(racing.mark));
  for (const auto& call : racing.stack)
    for (const auto& frame : call)
      text += fmt::format(" {}{}{}\n", printable(frame.function), printable(place_of(frame)),
                          frame.inlined ? " (inlined)" : "");
  if (racing.stack.empty() || racing.stack.front().empty())
    text += fmt::format(" {:#x} (no symbol)\n", access.rip.raw);
  const int digits = static_cast<int>(2 * std::min(access.bytes, 8u));
  if (access.writes)
    text +=
        fmt::format("value changed: 0x{:0{}x} -> 0x{:0{}x}\n", access.before, digits, access.after, digits);
  else
    text += fmt::format("value: 0x{:0{}x}\n", access.before, digits);
  // GDB numbers vCPUs from 1.
  return text + fmt::format("go there: reprise gdb {} --at {} -- -ex 'thread {}'{}\n", printable(folder),
                            replay::to_text(racing.mark), access.vcpu.raw + 1,
                            racing.exact ? "" : " (shortly before it)");
}

nlohmann::json frames_json(const std::vector<analysis::CodeFrame>& frames) {
  nlohmann::json json = nlohmann::json::array();
  for (const auto& frame : frames)
    json.push_back({{"function", frame.function},
                    {"file", frame.file},
                    {"line", frame.line},
                    {"inlined", frame.inlined}});
  return json;
}

nlohmann::json access_json(const analysis::RacingAccess& racing) {
  const replay::MemoryAccess& access = racing.access;
  nlohmann::json stack = nlohmann::json::array();
  for (const auto& call : racing.stack) stack.push_back(frames_json(call));
  return {{"vcpu", access.vcpu.raw},      {"mark", replay::to_text(racing.mark)},
          {"exact", racing.exact},        {"kind", kind_of(access)},
          {"rip", access.rip.raw},        {"address", access.linear.raw},
          {"physical", access.start.raw}, {"bytes", access.bytes},
          {"before", access.before},      {"after", access.after},
          {"object", racing.object},      {"stack", stack}};
}

}  // namespace

std::string text_of(const analysis::Race& race, const std::string& folder) {
  const auto name = [](const analysis::RacingAccess& racing) {
    return name_of(racing.stack.empty() ? std::vector<analysis::CodeFrame>() : racing.stack.front(),
                   racing.access.rip);
  };
  return fmt::format("{}RACE: {} / {}{}\n\n{}\n{}{}", kRule, printable(name(race.first)),
                     printable(name(race.second)),
                     race.count == 1 ? "" : fmt::format(" ({} times)", race.count),
                     text_of_access(race.first, folder), text_of_access(race.second, folder), kRule);
}

std::string text_of(const analysis::FalseSharing& sharing) {
  std::string text = fmt::format("{}FALSE SHARING: page {:#x}, {}\n\n", kRule, address_of(sharing.page).raw,
                                 counted(sharing.transfers, "transfer"));
  for (const auto& user : sharing.users) {
    text += fmt::format("vCPU {} {} bytes {:#x} to {:#x}{}\n", user.vcpu.raw,
                        user.writes ? "writes" : "reads", user.first, user.last,
                        user.object.empty() ? "" : fmt::format(" ({})", printable(user.object)));
    for (const auto& frame : user.code)
      text += fmt::format(" {}{}{}\n", printable(frame.function), printable(place_of(frame)),
                          frame.inlined ? " (inlined)" : "");
  }
  return text + std::string(kRule);
}

nlohmann::json json_of(const analysis::Race& race) {
  return {{"first", access_json(race.first)}, {"second", access_json(race.second)}, {"count", race.count}};
}

nlohmann::json json_of(const analysis::FalseSharing& sharing) {
  nlohmann::json users = nlohmann::json::array();
  for (const auto& user : sharing.users)
    users.push_back({{"vcpu", user.vcpu.raw},
                     {"writes", user.writes},
                     {"first", user.first},
                     {"last", user.last},
                     {"object", user.object},
                     {"code", frames_json(user.code)}});
  return {{"page", address_of(sharing.page).raw}, {"transfers", sharing.transfers}, {"users", users}};
}

}  // namespace reprise::cli
