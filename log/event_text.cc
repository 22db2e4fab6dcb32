#include "log/event_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"

namespace reprise::log {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

std::string text_of(const PageStep& step) {
  return fmt::format("{:#x} v{}", step.page.raw, step.version);
}

std::string text_of(const Gain& gain) {
  constexpr size_t kShown = 8;
  std::string text = fmt::format("ticket {:<10} {:<5}", gain.ticket.raw, name(gain.right));
  for (size_t i = 0; i < std::min(gain.pages.size(), kShown); ++i)
    text += fmt::format("{} {}", i == 0 ? "" : ",", text_of(gain.pages[i]));
  if (gain.pages.size() > kShown) text += fmt::format(", and {} more", gain.pages.size() - kShown);
  return text;
}

std::string text_of(const Loss& loss) {
  return fmt::format("ticket {:<10} {:<5} {}", loss.ticket.raw, name(loss.left), text_of(loss.page));
}

std::string text_of(const Value& value) {
  return fmt::format("{} {:#x}", name(value.source), value.value);
}

std::string text_of(const ApicMessage& message) {
  return fmt::format("{} vector {}", name(message.kind), message.vector);
}

std::string text_of(const Digest& digest) {
  return fmt::format("registers {:016x}", digest.registers);
}

std::string text_of(const End& end) {
  return fmt::format("registers {:016x}", end.registers);
}

std::string text_of(const Spin& spin) {
  return fmt::format("registers {:016x} period {}", spin.registers, spin.period);
}

std::string text_of(const MachineDigest& digest) {
  return fmt::format("memory and devices {:016x}", digest.machine);
}

std::string text_of(const UserBreakpoint& at) {
  return fmt::format("user mode {:#x} registers {:016x} rest {:016x}", at.address.raw, at.registers, at.rest);
}

std::string text_of(const Preemption& at) {
  return fmt::format("rip {:#x} registers {:016x}", at.rip.raw, at.registers);
}

std::string text_of(const Input& input) {
  constexpr size_t kShown = 40;
  std::string text = fmt::format("{}, {} byte{}", name(input.device), input.bytes.size(),
                                 input.bytes.size() == 1 ? "" : "s");
  if (input.bytes.empty()) return text;
  return fmt::format("{} \"{}\"{}", text, printable(input.bytes.substr(0, kShown)),
                     input.bytes.size() > kShown ? "..." : "");
}

json json_of(const PageStep& step) {
  return {{"page", step.page.raw}, {"version", step.version}};
}

void fill(json& out, const Gain& gain) {
  out["ticket"] = gain.ticket.raw;
  out["right"] = name(gain.right);
  out["pages"] = json::array();
  for (const PageStep& step : gain.pages) out["pages"].push_back(json_of(step));
}

void fill(json& out, const Loss& loss) {
  out["ticket"] = loss.ticket.raw;
  out["left"] = name(loss.left);
  out.update(json_of(loss.page));
}

void fill(json& out, const Value& value) {
  out["source"] = name(value.source);
  out["value"] = value.value;
}

void fill(json& out, const ApicMessage& message) {
  out["message"] = name(message.kind);
  out["vector"] = message.vector;
}

void fill(json& out, const Digest& digest) {
  out["registers"] = fmt::format("{:016x}", digest.registers);
}

void fill(json& out, const End& end) {
  out["registers"] = fmt::format("{:016x}", end.registers);
}

void fill(json& out, const Spin& spin) {
  out["registers"] = fmt::format("{:016x}", spin.registers);
  out["period"] = spin.period;
}

void fill(json& out, const MachineDigest& digest) {
  out["machine"] = fmt::format("{:016x}", digest.machine);
}

void fill(json& out, const UserBreakpoint& at) {
  out["address"] = at.address.raw;
  out["registers"] = fmt::format("{:016x}", at.registers);
  out["rest"] = fmt::format("{:016x}", at.rest);
}

void fill(json& out, const Preemption& at) {
  out["rip"] = at.rip.raw;
  out["registers"] = fmt::format("{:016x}", at.registers);
}

void fill(json& out, const Input& input) {
  out["device"] = name(input.device);
  std::string bytes;
  for (const char byte : input.bytes) bytes += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  out["bytes"] = std::move(bytes);  // hexadecimal
}

// JSON is UTF-8: bytes that are not are replaced (U+FFFD).
json text_of_bytes(const std::string& bytes) {
  return json::parse(json(bytes).dump(-1, ' ', false, json::error_handler_t::replace));
}

// `index` < 0: the field is not repeated.
json field_of(const Message& message, const FieldDescriptor& field, int index) {
  const auto& reflection = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return one ? reflection.GetUInt32(message, &field)
                 : reflection.GetRepeatedUInt32(message, &field, index);
    case FieldDescriptor::CPPTYPE_UINT64:
      return one ? reflection.GetUInt64(message, &field)
                 : reflection.GetRepeatedUInt64(message, &field, index);
    case FieldDescriptor::CPPTYPE_INT64:
      return one ? reflection.GetInt64(message, &field) : reflection.GetRepeatedInt64(message, &field, index);
    case FieldDescriptor::CPPTYPE_STRING:
      return text_of_bytes(one ? reflection.GetString(message, &field)
                               : reflection.GetRepeatedString(message, &field, index));
    case FieldDescriptor::CPPTYPE_ENUM:
      return (one ? reflection.GetEnum(message, &field) : reflection.GetRepeatedEnum(message, &field, index))
          ->name();
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return to_json(one ? reflection.GetMessage(message, &field)
                         : reflection.GetRepeatedMessage(message, &field, index));
    default:
      return nullptr;  // schema.proto uses no other type
  }
}

}  // namespace

std::string_view name(Right right) {
  switch (right) {
    case Right::kNone:
      return "none";
    case Right::kRead:
      return "read";
    case Right::kWrite:
      return "write";
  }
  return "unknown";
}

std::string_view name(ApicMessageKind kind) {
  switch (kind) {
    case ApicMessageKind::kFixed:
      return "fixed";
    case ApicMessageKind::kNmi:
      return "nmi";
    case ApicMessageKind::kInit:
      return "init";
    case ApicMessageKind::kStartup:
      return "startup";
    case ApicMessageKind::kTimer:
      return "timer";
  }
  return "unknown";
}

std::string to_text(const Event& event) {
  return fmt::format("{:>10} {:>14}  {:<7} {}", event.position.stops, event.position.ticks.raw,
                     kind_name(event),
                     std::visit([](const auto& what) { return text_of(what); }, event.what));
}

json to_json(const Event& event) {
  json out = {
      {"stops", event.position.stops}, {"ticks", event.position.ticks.raw}, {"kind", kind_name(event)}};
  std::visit([&out](const auto& what) { fill(out, what); }, event.what);
  return out;
}

json to_json(const Message& message) {
  json out = json::object();
  const auto& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (field.is_repeated()) {
      json list = json::array();
      for (int at = 0; at < message.GetReflection()->FieldSize(message, &field); ++at)
        list.push_back(field_of(message, field, at));
      out[field.name()] = std::move(list);
    } else if (!field.has_presence() || message.GetReflection()->HasField(message, &field)) {
      out[field.name()] = field_of(message, field, -1);
    }
  }
  return out;
}

}  // namespace reprise::log
