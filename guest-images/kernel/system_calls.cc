#include "kernel/system_calls.h"

#include "kernel/exit.h"
#include "kernel/hpet.h"
#include "kernel/local_apic.h"
#include "kernel/serial_console.h"
#include "kernel/shootdown.h"
#include "kernel/system_call_numbers.h"
#include "kernel/threads.h"

namespace reprise::guest::kernel {
namespace {

// Interrupts are off from the comparison to the halt, and `sti` holds them off for one instruction
// more. So a wake-up that comes after the comparison is still pending at `hlt` and ends it at once.
// Source: Intel SDM vol. 2, STI.
void sleep_while(const volatile uint32_t* word, uint32_t expected) {
  if (*word == expected) asm volatile("sti; hlt; cli" ::: "memory");
}

}  // namespace

void system_call(ThreadFrame& frame) {
  const auto number = static_cast<SystemCall>(frame.rax);
  const uint64_t first = frame.rdi, second = frame.rsi;
  frame.rax = 0;
  switch (number) {
    case SystemCall::kExit:
      exit_machine(static_cast<uint32_t>(first));
    case SystemCall::kWrite:
      return write_console(reinterpret_cast<const char*>(first), second);
    case SystemCall::kTime:
      frame.rax = hpet_nanoseconds();
      return;
    case SystemCall::kSleepWhile:
      return sleep_while(reinterpret_cast<const volatile uint32_t*>(first), static_cast<uint32_t>(second));
    case SystemCall::kWake:
      return send_wake(static_cast<uint32_t>(first));
    case SystemCall::kSetTimer:
      return set_periodic_timer(static_cast<uint32_t>(first));
    case SystemCall::kYield:
      return yield_thread(frame);
    case SystemCall::kSpawn:
      frame.rax = spawn_thread(static_cast<uint32_t>(first), second);
      return;
    case SystemCall::kFinishThread:
      return finish_thread(frame);
    case SystemCall::kInitCpu:
      return send_init(static_cast<uint32_t>(first));
    case SystemCall::kStartCpu:
      return send_startup(static_cast<uint32_t>(first));
    case SystemCall::kJoinShootdown:
      return join_shootdown(reinterpret_cast<Shootdown*>(first));
    case SystemCall::kChangeTranslation:
      return change_translation();
    case SystemCall::kShootDown:
      return shoot_down(static_cast<uint32_t>(first));
    case SystemCall::kCatchFaults:
      return catch_faults(first, second);
  }
  exit_machine(kExitBadSystemCall);
}

}  // namespace reprise::guest::kernel
