#include "kernel/serial_console.h"

#include "kernel/port_io.h"

namespace reprise::guest::kernel {
namespace {

constexpr uint16_t kData = 0x3f8, kInterruptEnable = 0x3f9, kFifoControl = 0x3fa, kLineControl = 0x3fb,
                   kLineStatus = 0x3fd;
constexpr uint8_t kTransmitterEmpty = 0x20;
constexpr size_t kFifoDepth = 16;

}  // namespace

void start_console() {
  out8(kInterruptEnable, 0);
  out8(kFifoControl, 0x07);  // FIFOs on and empty
  out8(kLineControl, 0x03);  // 8 bits, no parity; the speed is left as it is
}

void write_console(const char* text, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    if (i % kFifoDepth == 0) {
      while (!(in8(kLineStatus) & kTransmitterEmpty)) {
      }
    }
    out8(kData, static_cast<uint8_t>(text[i]));
  }
}

}  // namespace reprise::guest::kernel
