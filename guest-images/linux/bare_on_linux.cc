// Runs a bare-metal guest's program as a process of Linux: its sources and its runtime, unchanged, with a
// thread of Linux for each of its CPUs and threads. A system call of such a program is a `ud2`
// (kernel/system_call_numbers.h); here its signal is what the kernel of guest-images/kernel is there. Linux
// switches between threads, so the timer does nothing, and calls for the window are refused.
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "kernel/boot_information.h"
#include "kernel/layout.h"
#include "kernel/system_call_numbers.h"

namespace reprise::guest {

constexpr size_t kPageBytes = 4096, kHeapBytes = 64 << 20;

extern "C" {
BootInformation boot_information;
alignas(kPageBytes) uint8_t heap_start[kHeapBytes];
alignas(THREAD_STACK_SIZE) uint8_t thread_stacks[size_t{MAX_CPUS} * THREADS_PER_CPU * THREAD_STACK_SIZE];
void user_start();
}

namespace {

using Entry = void (*)();

struct Cpu {
  std::atomic<const uint32_t*> sleeps_on{nullptr};
  std::array<std::atomic<bool>, THREADS_PER_CPU> used{};  // a stack is used once
};
std::array<Cpu, MAX_CPUS> machine;

thread_local uint32_t this_cpu;
thread_local uint64_t catcher, catcher_stack;  // kCatchFaults

struct Start {
  Entry entry;
  uint32_t cpu;
};

void* run(void* argument) {
  const Start start = *static_cast<Start*>(argument);
  std::free(argument);
  this_cpu = start.cpu;
  start.entry();
  return nullptr;
}

// On the stack that tells a thread who it is (runtime/thread.h).
bool start_thread(uint32_t cpu, uint32_t thread, Entry entry) {
  if (cpu >= MAX_CPUS || thread >= THREADS_PER_CPU || machine[cpu].used[thread].exchange(true)) return false;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, reinterpret_cast<void*>(thread_stack(cpu, thread)), THREAD_STACK_SIZE);
  auto* const start = static_cast<Start*>(std::malloc(sizeof(Start)));
  *start = {entry, cpu};
  pthread_t id;
  return pthread_create(&id, &attributes, run, start) == 0;
}

// May return without a reason, as a halt may end.
void sleep_while(const uint32_t* word, uint32_t expected) {
  constexpr timespec kLongest{0, 10'000'000};
  machine[this_cpu].sleeps_on = word;
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &kLongest, nullptr, 0);
  machine[this_cpu].sleeps_on = nullptr;
}

void wake(uint32_t cpu) {
  if (const uint32_t* const word = machine[cpu % MAX_CPUS].sleeps_on)
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

uint64_t system_call(SystemCall number, uint64_t first, uint64_t second) {
  switch (number) {
    case SystemCall::kExit:
      _exit(static_cast<int>(first));
    case SystemCall::kWrite:
      return static_cast<uint64_t>(::write(STDOUT_FILENO, reinterpret_cast<const void*>(first), second));
    case SystemCall::kTime: {
      timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
    }
    case SystemCall::kSleepWhile:
      sleep_while(reinterpret_cast<const uint32_t*>(first), static_cast<uint32_t>(second));
      return 0;
    case SystemCall::kWake:
      wake(static_cast<uint32_t>(first));
      return 0;
    case SystemCall::kYield:
      sched_yield();
      return 0;
    case SystemCall::kSpawn:
      return start_thread(this_cpu, static_cast<uint32_t>(first), reinterpret_cast<Entry>(second)) ? 1 : 0;
    case SystemCall::kFinishThread:
      syscall(SYS_exit, 0);
      return 0;
    case SystemCall::kStartCpu:
      start_thread(static_cast<uint32_t>(first), 0, user_start);
      return 0;
    case SystemCall::kCatchFaults:
      catcher = first;
      catcher_stack = second;
      return 0;
    case SystemCall::kSetTimer:
    case SystemCall::kInitCpu:
      return 0;
    default:
      _exit(static_cast<int>(kExitBadSystemCall));
  }
}

void on_exception(greg_t* registers, uint32_t vector) {
  if (catcher == 0) _exit(static_cast<int>(kExitException + vector));
  registers[REG_RIP] = static_cast<greg_t>(catcher);
  registers[REG_RSP] = static_cast<greg_t>(catcher_stack);
  registers[REG_RAX] = 1 + static_cast<greg_t>(vector);
  catcher = 0;
}

// Only where the program's own code is interrupted, which calls nothing of this library: so what is not safe
// in a signal handler elsewhere is here.
void on_signal(int signal, siginfo_t*, void* context) {
  constexpr uint32_t kDivide = 0, kOpcode = 6, kPage = 14;
  constexpr std::array<uint8_t, 2> kUd2{0x0f, 0x0b};
  greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (signal == SIGSEGV) return on_exception(registers, kPage);
  if (signal == SIGFPE) return on_exception(registers, kDivide);
  if (std::memcmp(reinterpret_cast<const void*>(registers[REG_RIP]), kUd2.data(), kUd2.size()) != 0)
    return on_exception(registers, kOpcode);
  registers[REG_RIP] += kUd2.size();
  registers[REG_RAX] = static_cast<greg_t>(system_call(static_cast<SystemCall>(registers[REG_RAX]),
                                                       static_cast<uint64_t>(registers[REG_RDI]),
                                                       static_cast<uint64_t>(registers[REG_RSI])));
}

}  // namespace
}  // namespace reprise::guest

int main(int count, char** words) {
  using namespace reprise::guest;
  std::string line;
  for (int i = 1; i < count; ++i) line += std::string(words[i]) + " ";
  std::strncpy(boot_information.command_line, line.c_str(), sizeof boot_information.command_line - 1);
  cpu_set_t usable;
  sched_getaffinity(0, sizeof usable, &usable);
  boot_information.cpus = static_cast<uint32_t>(std::min(CPU_COUNT(&usable), MAX_CPUS));
  boot_information.ram_end = reinterpret_cast<uint64_t>(heap_start) + kHeapBytes;
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (const int signal : {SIGILL, SIGSEGV, SIGFPE}) sigaction(signal, &action, nullptr);
  if (!start_thread(0, 0, user_start)) return 1;
  for (;;) pause();
}
