// The breakpoints of one GDB session and their conditions.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "replay/gdb/debug_target.h"
#include "replay/gdb/register_map.h"

namespace reprise::replay::gdb {

// Bounds for a hostile GDB; ten thousand breakpoints are a use that is tested.
inline constexpr size_t kMaxBreakpoints = 65'536;
inline constexpr size_t kMaxConditionBytes = 4 << 20;  // of all conditions together

// Threads: confined to one.
class BreakpointTable {
 public:
  // Both outlive this.
  BreakpointTable(DebugTarget& target, const RegisterMap& registers)
      : target_(target), registers_(registers) {}
  ~BreakpointTable() { clear(); }
  BreakpointTable(const BreakpointTable&) = delete;
  BreakpointTable& operator=(const BreakpointTable&) = delete;

  // `packet`: what follows 'Z' or 'z': TYPE,ADDRESS,KIND[;CONDITIONS]. Inserting one that is there replaces
  // its conditions. Errors: kUsage if that is no breakpoint, or one too many; the target's.
  Status insert(std::string_view packet);
  Status remove(std::string_view packet);
  // Removes all.
  void clear();

  // Whether `stop`, with the target standing there, is one that GDB wants to see: it has no conditions, one
  // of them is true, or one cannot be evaluated, which GDB will then tell.
  [[nodiscard]] bool wants(const StopEvent& stop) const;

 private:
  using Conditions = std::vector<std::vector<uint8_t>>;
  static size_t size_of(const Conditions& conditions);

  DebugTarget& target_;
  const RegisterMap& registers_;
  std::map<Breakpoint, Conditions> inserted_;
  size_t condition_bytes_ = 0;
};

}  // namespace reprise::replay::gdb
