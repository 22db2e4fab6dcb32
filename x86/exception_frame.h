// What the delivery of an exception with an error code pushes in long mode. Source: Intel SDM vol. 3, 6.14.2.
#pragma once

#include <cstdint>
#include <optional>

#include "x86/linear_memory.h"

namespace reprise::x86 {

struct ExceptionFrame {
  uint64_t error = 0, rip = 0, cs = 0, rflags = 0, rsp = 0, ss = 0;
};

// `stack`: rsp at the first instruction of the handler. Nothing: it cannot be read.
inline std::optional<ExceptionFrame> read_exception_frame(const LinearMemory& memory, Gva stack) {
  ExceptionFrame frame;
  const size_t read = memory.read(stack, {reinterpret_cast<uint8_t*>(&frame), sizeof frame});
  return read == sizeof frame ? std::optional(frame) : std::nullopt;
}

}  // namespace reprise::x86
