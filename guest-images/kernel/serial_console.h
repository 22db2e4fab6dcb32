// The console: a 16550 at COM1, output only, polled.
// Source: National Semiconductor PC16550D data sheet, table II.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace reprise::guest::kernel {

// 8 data bits, no parity, FIFO on, no interrupts. Once, by the first CPU.
void start_console();

// Writes `size` bytes. Cost: one exit for each byte and one more for each 16, the depth of the FIFO.
void write_console(const char* text, size_t size);

}  // namespace reprise::guest::kernel
