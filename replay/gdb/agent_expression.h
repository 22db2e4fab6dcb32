// GDB's agent expressions: the conditions that come with breakpoints, as bytecode for a small stack machine.
// Source: "Debugging with GDB" (13), appendix F, The GDB Agent Expression Mechanism.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/units.h"

namespace reprise::replay::gdb {

// What an expression is evaluated in.
class ExpressionContext {
 public:
  virtual ~ExpressionContext() = default;
  // The register of that number in the target description, its first eight bytes. Errors: kUsage if there is
  // none.
  [[nodiscard]] virtual Result<uint64_t> register_value(uint32_t number) const = 0;
  // Errors: kNotFound if not all of it is mapped.
  virtual Status read(Gva address, std::span<uint8_t> out) const = 0;
};

// Bytes of one expression. GDB's own bound is 255 bytes unless a condition is unusually long.
inline constexpr size_t kMaxExpressionBytes = 4096;

// What is on top of the stack at the end. Tracing, trace state variables and floating point are not
// supported. Errors: kUsage if the code is none, or runs for longer or deeper than bounds in the source;
// those of the context. Cost: at most 4,096 instructions; no allocation.
[[nodiscard]] Result<uint64_t> evaluate(std::span<const uint8_t> code, const ExpressionContext& context);

}  // namespace reprise::replay::gdb
