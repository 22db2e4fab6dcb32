// Just enough of the runtime to run a workload as a Linux program with one worker, so that
// measure_cost can time the same code with and without safepoints on the bare processor.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include "kernel/layout.h"
#include "runtime/heap.h"
#include "runtime/print.h"
#include "runtime/workload.h"

namespace reprise::guest {

uint32_t cpus() {
  return 1;
}

void internal::run_parallel(uint32_t, uint32_t, WorkerFunction function, const void* body, size_t) {
  timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  function(body, 0);
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("seconds=%.4f\n", double(end.tv_sec - start.tv_sec) + 1e-9 * double(end.tv_nsec - start.tv_nsec));
}

Line::~Line() {
  fwrite(text_, 1, size_, stderr);
}

void* allocate(size_t size) {
  return aligned_alloc(4096, (size + 4095) & ~size_t{4095});
}
void release(void* memory, size_t) {
  free(memory);
}

}  // namespace reprise::guest

using namespace reprise::guest;

// Line's other members and panic() come from runtime/print.cc on the real machine; here they are short.
void Line::add(const char* text) {
  while (*text && size_ < kSize) text_[size_++] = *text++;
}
void Line::add(Hex number) {
  add_unsigned(number.value);
}
void Line::add_unsigned(uint64_t number) {
  add(std::to_string(number).c_str());
}
void Line::add_signed(int64_t number) {
  add(std::to_string(number).c_str());
}
void reprise::guest::panic(const char* message) {
  fprintf(stderr, "panic: %s\n", message);
  exit(kExitPanic);
}

int main(int count, char** words) {
  void* clock = mmap(reinterpret_cast<void*>(CLOCK_PAGE), 4096, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (clock != reinterpret_cast<void*>(CLOCK_PAGE)) {
    perror("the clock page cannot be mapped");
    return 1;
  }
  static_cast<uint64_t*>(clock)[1] = ~uint64_t{0};
  std::string line;
  for (int i = 1; i < count; ++i) line += std::string(words[i]) + " ";
  const uint32_t status = workload(Arguments(line.c_str()));
  printf("safepoints=%llu\n", static_cast<unsigned long long>(static_cast<uint64_t*>(clock)[0]));
  return static_cast<int>(status);
}
