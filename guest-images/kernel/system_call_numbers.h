// System calls: what CPL 3 asks of CPL 0.
//
// A call is the instruction `ud2` at CPL 3 with rax = number and rdi, rsi = arguments; the result
// comes back in rax and every other register is kept. It is an exception because not every host lets
// SYSCALL or INT n at CPL 3 reach the guest's own kernel, and each lets #UD.
#pragma once

#include <stdint.h>

namespace reprise::guest {

enum class SystemCall : uint64_t {
  kExit = 0,                // (status): ends the machine; 0 is success
  kWrite = 1,               // (text, bytes): to the serial console
  kTime = 2,                // (): nanoseconds of the HPET
  kSleepWhile = 3,          // (const uint32_t* word, expected): if *word == expected, halt until an interrupt
  kWake = 4,                // (cpu): interrupt that CPU, which ends its halt
  kSetTimer = 5,            // (period in ns, 0 = off): periodic local APIC timer of this CPU
  kYield = 6,               // (): run this CPU's next thread
  kSpawn = 7,               // (thread 1..7, entry): new thread of this CPU, on thread_stack(cpu, thread)
  kFinishThread = 8,        // (): end this thread; not for thread 0
  kInitCpu = 9,             // (cpu): INIT, the first half of a start
  kStartCpu = 10,           // (cpu): SIPI, the second half; the CPU appears at CPL 3 in user_start()
  kJoinShootdown = 11,      // (Shootdown*): this CPU's window translates as the shootdown says from now on
  kChangeTranslation = 12,  // (): carry out the shootdown's request on this CPU
  kShootDown = 13,  // (cpus): interrupt CPUs 0 .. cpus - 1 but this one, which makes them carry it out
  kCatchFaults =
      14,  // (rip, rsp): an exception of this thread continues there, once, with rax = 1 + vector; 0: a crash
};

// Exit statuses of the kernel's own. 127 is the largest that isa-debug-exit can tell.
inline constexpr uint32_t kExitBadSystemCall = 0x5f;
inline constexpr uint32_t kExitException = 0x60;  // + vector

}  // namespace reprise::guest
