#include "kernel/fault_report.h"

#include "kernel/exit.h"
#include "kernel/serial_console.h"
#include "kernel/system_call_numbers.h"
#include "kernel/threads.h"

namespace reprise::guest::kernel {
namespace {

void put(const char* text) {
  size_t size = 0;
  while (text[size]) ++size;
  write_console(text, size);
}

void put(const char* name, uint64_t value) {
  put(name);
  char digits[18];
  for (int i = 0; i < 16; ++i) digits[17 - i] = "0123456789abcdef"[value >> (4 * i) & 15];
  digits[0] = '0';
  digits[1] = 'x';
  write_console(digits, sizeof(digits));
}

// Source: Intel SDM vol. 3, table 6-1.
const char* name_of(uint64_t vector) {
  switch (vector) {
    case 0:
      return "divide error";
    case 1:
      return "debug exception";
    case 3:
      return "breakpoint";
    case 6:
      return "undefined opcode";
    case 7:
      return "no coprocessor";
    case 8:
      return "double fault";
    case 13:
      return "general protection";
    case 14:
      return "page fault";
    case 19:
      return "SIMD exception";
    default:
      return "unexpected interrupt";
  }
}

}  // namespace

void report_fault(const ThreadFrame& frame) {
  uint64_t cr2;
  asm("movq %%cr2, %0" : "=r"(cr2));
  put("\nguest fault: ");
  put(name_of(frame.vector));
  put(" vector=", frame.vector);
  put(" error=", frame.error);
  put(" cpu=", this_slot().cpu);
  put("\nrip=", frame.rip);
  put(" cs=", frame.cs);
  put(" rflags=", frame.rflags);
  put(" rsp=", frame.rsp);
  put(" cr2=", cr2);
  put("\nrax=", frame.rax);
  put(" rbx=", frame.rbx);
  put(" rcx=", frame.rcx);
  put(" rdx=", frame.rdx);
  put("\nrsi=", frame.rsi);
  put(" rdi=", frame.rdi);
  put(" rbp=", frame.rbp);
  put(" r8=", frame.r8);
  put("\nr9=", frame.r9);
  put(" r10=", frame.r10);
  put(" r11=", frame.r11);
  put(" r12=", frame.r12);
  put("\nr13=", frame.r13);
  put(" r14=", frame.r14);
  put(" r15=", frame.r15);
  put("\n");
  exit_machine(kExitException + (frame.vector < 32 ? static_cast<uint32_t>(frame.vector) : 31));
}

}  // namespace reprise::guest::kernel
