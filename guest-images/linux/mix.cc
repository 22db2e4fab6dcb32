// What a Linux guest does while it is recorded: one small program for each thing in a kernel whose order or
// time could differ in a replay. mix NAME [N]: runs one; mix all [N]: one after the other. Prints one line
// each; exits with 1 if something is not as it must be.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr long kPage = 4096;

void require(bool condition, const char* what) {
  if (condition) return;
  std::printf("mix: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

template <typename Body>
void in_threads(unsigned count, Body body) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) threads.emplace_back([=] { body(i); });
  for (auto& thread : threads) thread.join();
}

uint64_t now_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

// A counter without a lock, and system calls in between, so that it fails once in a while.
void race(int n) {
  static volatile long counter;
  counter = 0;
  in_threads(4, [n](unsigned) {
    for (int i = 0; i < n; ++i) {
      const long seen = counter;
      if (i % 16 == 0) sched_yield();
      counter = seen + 1;
    }
  });
  std::printf("race expected=%d got=%ld\n", 4 * n, counter);
}

void locks(int n) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static long order;
  order = 0;
  in_threads(4, [n](unsigned me) {
    for (int i = 0; i < n; ++i) {
      pthread_mutex_lock(&mutex);
      order = order * 5 + me;
      pthread_mutex_unlock(&mutex);
    }
  });
  std::printf("locks order=%lx\n", order);
}

std::atomic<int> signals_seen{0};

void signals(int n) {
  signals_seen = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { ++signals_seen; };
  sigaction(SIGUSR1, &action, nullptr);
  int to_child[2], to_parent[2];
  require(pipe(to_child) == 0 && pipe(to_parent) == 0, "pipe");
  const pid_t child = fork();
  require(child >= 0, "fork");
  if (child == 0) {
    char byte = 0;
    while (read(to_child[0], &byte, 1) == 1 && byte != 'q') {
      kill(getppid(), SIGUSR1);
      if (write(to_parent[1], &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  for (int i = 0; i < n; ++i) {
    char byte = 'x';
    require(write(to_child[1], &byte, 1) == 1, "write");
    while (read(to_parent[0], &byte, 1) != 1) require(errno == EINTR, "read");
  }
  require(write(to_child[1], "q", 1) == 1, "write");
  while (waitpid(child, nullptr, 0) < 0) require(errno == EINTR, "waitpid");
  for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(fd);
  std::printf("signals sent=%d seen=%d\n", n, signals_seen.load());
}

// Copy-on-write, protection faults and mappings that come and go.
void memory(int n) {
  constexpr long kPages = 64;
  auto* area = static_cast<volatile char*>(
      mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  require(area != MAP_FAILED, "mmap");
  long sum = 0;
  for (int round = 0; round < n; ++round) {
    for (long i = 0; i < kPages; ++i) area[i * kPage] = static_cast<char>(round + i);
    const pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
      for (long i = 0; i < kPages; i += 2) area[i * kPage] = 0;
      _exit(area[kPage] == static_cast<char>(round + 1) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    require(status == 0, "a child saw its parent's page change");
    for (long i = 0; i < kPages; ++i) sum += area[i * kPage];
    mprotect(const_cast<char*>(area), kPages * kPage, round % 2 != 0 ? PROT_READ : PROT_READ | PROT_WRITE);
    mprotect(const_cast<char*>(area), kPages * kPage, PROT_READ | PROT_WRITE);
    void* other = mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::memset(other, round, 16 * kPage);
    munmap(other, 16 * kPage);
  }
  munmap(const_cast<char*>(area), kPages * kPage);
  std::printf("memory sum=%ld\n", sum);
}

void forks(int n) {
  int reaped = 0;
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < 4; ++k) {
      const pid_t child = fork();
      require(child >= 0, "fork");
      if (child == 0) _exit(k);
    }
    for (int k = 0, status = 0; k < 4; ++k) {
      require(wait(&status) > 0, "wait");
      reaped += WEXITSTATUS(status);
    }
  }
  require(reaped == 6 * n, "exit statuses");
  std::printf("forks children=%d\n", 4 * n);
}

void futex_wait(std::atomic<int>& word, int value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<int>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void futex(int n) {
  static std::atomic<int> turn;
  static std::atomic<int> sleeps;
  turn = sleeps = 0;
  in_threads(2, [n](unsigned me) {
    for (int i = 0; i < n; ++i) {
      for (int now = turn; now != static_cast<int>(me); now = turn) {
        ++sleeps;
        futex_wait(turn, now);
      }
      turn = 1 - static_cast<int>(me);
      futex_wake(turn);
    }
  });
  std::printf("futex turns=%d sleeps=%d\n", 2 * n, sleeps.load());
}

// User-mode spin-waits: nothing but the other thread ends them.
void spin(int n) {
  static std::atomic<int> turn;
  turn = 0;
  in_threads(2, [n](unsigned me) {
    for (int i = 0; i < n; ++i) {
      while (turn.load(std::memory_order_acquire) != static_cast<int>(me)) {
        if (i % 2 == 0) __builtin_ia32_pause();
      }
      turn.store(1 - static_cast<int>(me), std::memory_order_release);
    }
  });
  std::printf("spin turns=%d\n", 2 * n);
}

void timers(int n) {
  uint64_t slept = 0;
  for (int i = 0; i < n; ++i) {
    const uint64_t before = now_ns(CLOCK_MONOTONIC);
    const timespec pause{0, (i % 7 + 1) * 300'000};
    nanosleep(&pause, nullptr);
    const uint64_t passed = now_ns(CLOCK_MONOTONIC) - before;
    require(passed >= static_cast<uint64_t>(pause.tv_nsec), "a sleep that was too short");
    slept += passed;
  }
  static std::atomic<int> alarms;
  alarms = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { ++alarms; };
  sigaction(SIGALRM, &action, nullptr);
  timer_t timer{};
  require(timer_create(CLOCK_REALTIME, nullptr, &timer) == 0, "timer_create");
  const itimerspec every{{0, 2'000'000}, {0, 2'000'000}};
  timer_settime(timer, 0, &every, nullptr);
  while (alarms < n) pause();
  timer_delete(timer);
  std::printf("timers slept=%llu alarms=%d now=%llu\n", static_cast<unsigned long long>(slept), alarms.load(),
              static_cast<unsigned long long>(now_ns(CLOCK_REALTIME)));
}

// The time-stamp counter, read in user mode.
void stamps(int n) {
  uint64_t last = 0, mixed = 0;
  for (int i = 0; i < n; ++i) {
    const uint64_t now = __builtin_ia32_rdtsc();
    require(now >= last, "time goes back");
    mixed = mixed * 31 + now;
    last = now;
  }
  std::printf("stamps last=%llu mixed=%llx\n", static_cast<unsigned long long>(last),
              static_cast<unsigned long long>(mixed));
}

void files(int n) {
  const char* path = access("/disk", W_OK) == 0 ? "/disk/mix.data" : "/tmp/mix.data";
  const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  require(fd >= 0, path);
  std::vector<char> block(kPage);
  for (int i = 0; i < n; ++i) {
    std::fill(block.begin(), block.end(), static_cast<char>('a' + i % 26));
    require(write(fd, block.data(), block.size()) == kPage, "write");
    if (i % 8 == 0) require(fsync(fd) == 0, "fsync");
  }
  long sum = 0;
  lseek(fd, 0, SEEK_SET);
  while (read(fd, block.data(), block.size()) == kPage) sum += block[17];
  close(fd);
  unlink(path);
  std::printf("files %s sum=%ld\n", path, sum);
}

void loopback(int n) {
  const int server = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  require(bind(server, reinterpret_cast<sockaddr*>(&address), length) == 0, "bind");
  require(listen(server, 4) == 0 && getsockname(server, reinterpret_cast<sockaddr*>(&address), &length) == 0,
          "listen");
  std::thread echo([server] {
    const int peer = accept(server, nullptr, nullptr);
    char buffer[256];
    for (ssize_t got; (got = read(peer, buffer, sizeof buffer)) > 0;)
      if (write(peer, buffer, static_cast<size_t>(got)) != got) break;
    close(peer);
  });
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  require(connect(client, reinterpret_cast<sockaddr*>(&address), length) == 0, "connect");
  long bytes = 0;
  for (int i = 0; i < n; ++i) {
    char buffer[200] = {};
    require(write(client, buffer, sizeof buffer) == sizeof buffer, "write");
    for (ssize_t left = sizeof buffer; left > 0;) {
      const ssize_t got = read(client, buffer, static_cast<size_t>(left));
      require(got > 0, "read");
      left -= got;
      bytes += got;
    }
  }
  close(client);
  echo.join();
  close(server);
  std::printf("loopback bytes=%ld port=%d\n", bytes, ntohs(address.sin_port));
}

struct Part {
  const char* name;
  void (*run)(int);
  int size;
};
constexpr Part kParts[] = {{"race", race, 2000},  {"locks", locks, 1000},    {"signals", signals, 30},
                           {"memory", memory, 4}, {"forks", forks, 4},       {"futex", futex, 40},
                           {"spin", spin, 6},     {"timers", timers, 10},    {"stamps", stamps, 50},
                           {"files", files, 64},  {"loopback", loopback, 20}};

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string_view name = argc > 1 ? argv[1] : "all";
  bool known = false;
  for (const Part& part : kParts) {
    if (name != "all" && name != part.name) continue;
    known = true;
    part.run(argc > 2 ? std::max(1, std::atoi(argv[2])) : part.size);
  }
  if (known) return 0;
  std::printf("mix: no part is called %s\n", argv[1]);
  return 2;
}
