// A program that crashes, on the last CPU: what a fault looks like on the console, in the exit status
// and in a recording.
//
// Parameters: kind (page: a store through a null pointer, the default; divide; opcode: an undefined
//             instruction; protection: hlt at CPL 3; panic; status: end with the status given as status=).
#include "runtime/system_calls.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

enum class Kind { kPage, kDivide, kOpcode, kProtection, kPanic, kStatus };

void crash(Kind kind, uint32_t status) {
  switch (kind) {
    case Kind::kPage:
      asm volatile("movl $1, (%0)" ::"r"(uint64_t{0}));
      break;
    case Kind::kDivide:
      asm volatile("divl %0" ::"r"(0), "a"(1), "d"(0));
      break;
    case Kind::kOpcode:
      asm volatile(".byte 0x0f, 0xff, 0xc0");
      break;  // ud0
    case Kind::kProtection:
      asm volatile("hlt");
      break;
    case Kind::kPanic:
      panic("as requested");
    case Kind::kStatus:
      exit(status);
  }
}

Kind kind_of(const Arguments& arguments) {
  if (arguments.is("kind", "page", true)) return Kind::kPage;
  if (arguments.is("kind", "divide", false)) return Kind::kDivide;
  if (arguments.is("kind", "opcode", false)) return Kind::kOpcode;
  if (arguments.is("kind", "protection", false)) return Kind::kProtection;
  if (arguments.is("kind", "panic", false)) return Kind::kPanic;
  if (arguments.is("kind", "status", false)) return Kind::kStatus;
  panic("kind= is none of page, divide, opcode, protection, panic, status");
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const Kind kind = kind_of(arguments);
  const uint32_t status = static_cast<uint32_t>(arguments.number("status", 0));
  print("fault cpus=", cpus(), "\n");
  const uint32_t last = cpus() - 1;
  parallel(cpus(), [=](uint32_t worker) {
    if (worker == last) crash(kind, status);
  });
  print("FAILED: the fault did not come\n");
  return kExitWrongResult;
}

}  // namespace reprise::guest
