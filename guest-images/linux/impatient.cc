// Loops in user mode that change something and wait for somebody else, each of which never ends where it
// cannot be preempted: one vCPU at a time, and nobody else gets it. Compiled with safepoints. How often each
// went round depends on where exactly it was stopped, and is printed.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

struct Shared {
  volatile bool flag;
  volatile uint64_t rounds;
};

void wait_for(Shared& shared) {
  while (!shared.flag) shared.rounds = shared.rounds + 1;
}

void* set_flag(void* shared) {
  static_cast<Shared*>(shared)->flag = true;
  return nullptr;
}

// The main thread waits for another one, which has not begun yet.
void thread() {
  static Shared shared;
  pthread_t other;
  if (pthread_create(&other, nullptr, set_flag, &shared) != 0) exit(1);
  wait_for(shared);
  pthread_join(other, nullptr);
  printf("impatient thread rounds=%lu\n", shared.rounds);
}

// Parent and child wait for each other.
void process() {
  auto* shared = static_cast<Shared*>(
      mmap(nullptr, 2 * sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (shared == MAP_FAILED) exit(1);
  fflush(stdout);
  const pid_t child = fork();
  if (child < 0) exit(1);
  if (child == 0) {
    wait_for(shared[0]);
    shared[1].flag = true;
    _exit(0);
  }
  for (int i = 0; i < 3'000'000; ++i) shared[1].rounds = shared[1].rounds + 1;
  shared[0].flag = true;
  wait_for(shared[1]);
  waitpid(child, nullptr, 0);
  printf("impatient process rounds=%lu and %lu\n", shared[0].rounds, shared[1].rounds);
}

volatile bool g_alarmed;

// A signal comes while it computes.
void alarm() {
  signal(SIGALRM, [](int) { g_alarmed = true; });
  const itimerval soon = {{0, 0}, {0, 20'000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  uint64_t rounds = 0;
  while (!g_alarmed) ++rounds;
  printf("impatient alarm rounds=%lu\n", rounds);
}

}  // namespace

int main() {
  thread();
  process();
  alarm();
}
