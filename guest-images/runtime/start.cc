// The first C++ at CPL 3, on every CPU.
#include "kernel/boot_information.h"
#include "runtime/arguments.h"
#include "runtime/heap.h"
#include "runtime/parallel.h"
#include "runtime/print.h"
#include "runtime/system_calls.h"
#include "runtime/thread.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

// cpus=N on the command line, else what the kernel was told, else 1.
uint32_t wanted_cpus(const Arguments& arguments) {
  const uint64_t told = boot_information.cpus ? boot_information.cpus : 1;
  const uint64_t wanted = arguments.number("cpus", told);
  if (wanted < 1 || wanted > MAX_CPUS || wanted > told)
    panic("cpus= is not between 1 and what the machine has");
  return static_cast<uint32_t>(wanted);
}

[[noreturn]] void run_workload() {
  const Arguments arguments(boot_information.command_line);
  start_heap(reinterpret_cast<uint64_t>(heap_start), boot_information.ram_end);
  start_cpus(wanted_cpus(arguments));
  const bool verbose = arguments.flag("verbose");
  const uint64_t start = verbose ? time_ns() : 0;
  const uint32_t status = workload(arguments);
  if (verbose) print("microseconds=", (time_ns() - start) / 1000, "\n");
  arguments.report_unused();
  exit(status);
}

}  // namespace

extern "C" void user_start() {
  ThreadBlock& self = this_thread();
  const uint64_t index = (reinterpret_cast<uint64_t>(&self) - thread_stack(0, 0)) / THREAD_STACK_SIZE;
  self.cpu = static_cast<uint32_t>(index / THREADS_PER_CPU);
  self.thread = 0;
  self.preemptions = 0;
  self.siblings = 0;
  if (self.cpu == 0) run_workload();
  serve_cpu();
}

}  // namespace reprise::guest
