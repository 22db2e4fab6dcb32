// GDB's registers: their numbers, names, sizes, and where their values are in what KVM gives.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "replay/gdb/debug_target.h"

namespace reprise::replay::gdb {

// What GDB calls a set of registers, in the order of their numbers.
enum class RegisterFeature : uint8_t { kCore, kSse, kSegments, kSystem, kAvx };

struct RegisterInfo {
  RegisterFeature feature;
  std::string name;
  uint32_t bytes;
  std::string type;   // GDB's
  std::string group;  // GDB's; empty for what the type implies
};

// The registers of one kind of machine. Threads: immutable.
class RegisterMap {
 public:
  // `avx`: whether the machine has ymm registers.
  explicit RegisterMap(bool avx);

  // In the order of their numbers, from 0 on.
  [[nodiscard]] std::span<const RegisterInfo> infos() const { return infos_; }
  [[nodiscard]] uint32_t count() const { return static_cast<uint32_t>(infos_.size()); }

  // The value as GDB transfers it: bytes of `number`, lowest first. Nothing if there is no such register.
  [[nodiscard]] std::optional<std::vector<uint8_t>> get(const Registers& registers, uint32_t number) const;
  // All of them, as in the answer to 'g'.
  [[nodiscard]] std::vector<uint8_t> get_all(const Registers& registers) const;
  // Errors: kUsage if there is no such register, the size differs, or it is one whose change would need more
  // than the value: selectors, and those that control the machine.
  Status set(Registers& registers, uint32_t number, std::span<const uint8_t> value) const;
  // As set() for all those that differ.
  Status set_all(Registers& registers, std::span<const uint8_t> values) const;

 private:
  std::vector<RegisterInfo> infos_;
};

// Numbers that stop replies name.
inline constexpr uint32_t kRegisterRbp = 6;
inline constexpr uint32_t kRegisterRsp = 7;
inline constexpr uint32_t kRegisterRip = 16;

}  // namespace reprise::replay::gdb
