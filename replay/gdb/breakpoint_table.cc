#include "replay/gdb/breakpoint_table.h"

#include <cstring>
#include <optional>

#include "replay/gdb/agent_expression.h"
#include "replay/gdb/packet_text.h"

namespace reprise::replay::gdb {
namespace {

// In the order of GDB's types.
constexpr std::array kKinds = {BreakpointKind::kSoftware, BreakpointKind::kHardware, BreakpointKind::kWrite,
                               BreakpointKind::kRead, BreakpointKind::kAccess};

Result<Breakpoint> parse_breakpoint(PacketText& packet) {
  const auto type = packet.number();
  const bool has_address = packet.take(",");
  const auto address = packet.number();
  const bool has_length = packet.take(",");
  const auto length = packet.number();
  if (!type || !has_address || !address || !has_length || !length || *type >= kKinds.size())
    return fail(ErrorCode::kUsage, "a breakpoint that cannot be understood");
  Breakpoint breakpoint{.kind = kKinds[*type], .address = Gva(*address)};
  if (!breakpoint.is_watchpoint())
    return breakpoint;  // to those, the "length" says how GDB would have planted a byte
  if (*length == 0 || *address + *length < *address)
    return fail(ErrorCode::kUsage, "a watchpoint of {} bytes at {:#x}", *length, *address);
  breakpoint.length = *length;
  return breakpoint;
}

// [;]Xlength,code... Options that are not known are skipped, up to the next ';'.
Result<std::vector<std::vector<uint8_t>>> parse_conditions(PacketText& packet) {
  std::vector<std::vector<uint8_t>> conditions;
  while (!packet.done()) {
    if (packet.take(";")) continue;
    if (!packet.take("X")) {
      packet.until(';');
      continue;
    }
    const auto length = packet.number();
    if (!length || *length > kMaxExpressionBytes || !packet.take(",") || packet.rest().size() < 2 * *length)
      return fail(ErrorCode::kUsage, "a condition that cannot be understood, or is longer than {} bytes",
                  kMaxExpressionBytes);
    const std::string_view hex = packet.rest().substr(0, 2 * *length);
    auto code = from_hex(hex);
    if (!code) return fail(ErrorCode::kUsage, "a condition that is not hexadecimal");
    packet.take(hex);
    conditions.push_back(std::move(*code));
  }
  return conditions;
}

class StopContext final : public ExpressionContext {
 public:
  StopContext(const DebugTarget& target, const RegisterMap& registers, VcpuId vcpu)
      : target_(target), registers_(registers), vcpu_(vcpu) {}

  Result<uint64_t> register_value(uint32_t number) const override {
    if (!values_) {
      TRY_ASSIGN(values_, target_.registers(vcpu_));
    }
    const auto bytes = registers_.get(*values_, number);
    if (!bytes) return fail(ErrorCode::kUsage, "a condition on register {}, which there is not", number);
    uint64_t value = 0;
    std::memcpy(&value, bytes->data(), std::min(bytes->size(), sizeof value));
    return value;
  }

  Status read(Gva address, std::span<uint8_t> out) const override {
    if (target_.read(vcpu_, address, out) == out.size()) return {};
    return fail(ErrorCode::kNotFound, "a condition on memory at {:#x}, which is not mapped", address.raw);
  }

 private:
  const DebugTarget& target_;
  const RegisterMap& registers_;
  VcpuId vcpu_;
  mutable std::optional<Registers> values_;  // not every condition looks at them
};

}  // namespace

size_t BreakpointTable::size_of(const Conditions& conditions) {
  size_t bytes = 0;
  for (const auto& condition : conditions) bytes += condition.size() + sizeof(Conditions::value_type);
  return bytes;
}

Status BreakpointTable::insert(std::string_view packet) {
  PacketText text(packet);
  TRY_ASSIGN(const Breakpoint breakpoint, parse_breakpoint(text));
  TRY_ASSIGN(Conditions conditions, parse_conditions(text));
  const auto old = inserted_.find(breakpoint);
  const size_t others = condition_bytes_ - (old == inserted_.end() ? 0 : size_of(old->second));
  if (others + size_of(conditions) > kMaxConditionBytes)
    return fail(ErrorCode::kUsage, "conditions of more than {} bytes", kMaxConditionBytes);
  if (old == inserted_.end()) {
    if (inserted_.size() == kMaxBreakpoints)
      return fail(ErrorCode::kUsage, "more than {} breakpoints", kMaxBreakpoints);
    TRY(target_.insert(breakpoint));
  }
  condition_bytes_ = others + size_of(conditions);
  inserted_[breakpoint] = std::move(conditions);
  return {};
}

Status BreakpointTable::remove(std::string_view packet) {
  PacketText text(packet);
  TRY_ASSIGN(const Breakpoint breakpoint, parse_breakpoint(text));
  const auto old = inserted_.find(breakpoint);
  if (old == inserted_.end()) return {};
  condition_bytes_ -= size_of(old->second);
  inserted_.erase(old);
  return target_.remove(breakpoint);
}

void BreakpointTable::clear() {
  for (const auto& [breakpoint, conditions] : inserted_) (void)target_.remove(breakpoint);
  inserted_.clear();
  condition_bytes_ = 0;
}

bool BreakpointTable::wants(const StopEvent& stop) const {
  const auto found = inserted_.find(stop.hit);
  if (found == inserted_.end() || found->second.empty()) return true;
  const StopContext context(target_, registers_, stop.vcpu);
  return std::any_of(found->second.begin(), found->second.end(), [&](const std::vector<uint8_t>& condition) {
    const auto value = evaluate(condition, context);
    return !value || *value != 0;
  });
}

}  // namespace reprise::replay::gdb
