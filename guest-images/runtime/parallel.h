// Running one function on many CPUs.
//
// CPU 0 runs the workload's main function. The others sleep until parallel() gives them work.
// Worker w runs on CPU w % cpus(); workers beyond the number of CPUs become further threads there,
// which take turns when the timer says so (`switch_every`).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <type_traits>

namespace reprise::guest {

// CPUs that run. 1 to MAX_CPUS.
uint32_t cpus();

// Starts the other CPUs. Once, on CPU 0.
void start_cpus(uint32_t count);

// The life of a CPU other than 0: sleeps, does its share of each parallel(), sleeps again.
[[noreturn]] void serve_cpu();

namespace internal {
using WorkerFunction = void (*)(const void* body, uint32_t worker);
inline constexpr size_t kBodySize = 512;
void run_parallel(uint32_t workers, uint32_t switch_every, WorkerFunction function, const void* body,
                  size_t size);
}  // namespace internal

// Calls body(worker) for workers 0 .. workers - 1 and returns when all have returned.
//
// `switch_every`: time slice in ns where a CPU has several workers; 0 lets each run until it yields.
// The body is copied to a page of its own that all workers read. Capture by value: a reference to a
// local variable would make all CPUs read CPU 0's stack, which CPU 0 writes all the time.
// Requires: CPU 0, not inside another parallel(); workers <= THREADS_PER_CPU * cpus().
template <typename Body>
void parallel(uint32_t workers, const Body& body, uint32_t switch_every = 0) {
  static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= internal::kBodySize);
  internal::run_parallel(
      workers, switch_every,
      [](const void* copy, uint32_t worker) { (*static_cast<const Body*>(copy))(worker); }, &body,
      sizeof(body));
}

}  // namespace reprise::guest
