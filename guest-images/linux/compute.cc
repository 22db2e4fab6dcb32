// Programs that compute, and make no system calls meanwhile: as unmodified programs of users do. Compiled
// without safepoints. compute KIND ROUNDS prints one line; exit status 0 if the result is right.
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

extern "C" const unsigned char __executable_start[], etext[];  // of the linker

namespace {

using Words = std::array<uint64_t, 4096>;

[[gnu::noinline]] void mix_words(Words& words) {
  for (unsigned pass = 0; pass < 32; ++pass)
    for (size_t i = 0; i < words.size(); ++i)
      words[i] = (words[i] ^ words[(i + 1) % words.size()]) * 0x9e3779b97f4a7c15ull + pass;
}

// The result after so many rounds is a function of nothing else.
uint64_t nested(uint64_t rounds) {
  static Words words;
  for (uint64_t i = 0; i < rounds; ++i) mix_words(words);
  return words[0];
}

// In one function, as compilers unroll and inline them.
uint64_t matrices(uint64_t rounds) {
  constexpr int kSize = 64;
  static double a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j < kSize; ++j) a[i][j] = b[i][j] = 1.0 / (1 + i + j);
  for (uint64_t round = 0; round < rounds; ++round)
    for (int i = 0; i < kSize; ++i)
      for (int j = 0; j < kSize; ++j) {
        double sum = 0;
        for (int k = 0; k < kSize; ++k) sum += a[i][k] * b[k][j];
        c[i][j] += sum;
      }
  return static_cast<uint64_t>(c[kSize - 1][kSize - 1] * 1000);
}

[[gnu::noinline]] void sort(uint32_t* from, uint32_t* to) {
  if (to - from < 2) return;
  const uint32_t pivot = from[(to - from) / 2];
  uint32_t *left = from, *right = to - 1;
  while (left <= right) {
    while (*left < pivot) ++left;
    while (*right > pivot) --right;
    if (left <= right) std::swap(*left++, *right--);
  }
  sort(from, right + 1);
  sort(left, to);
}

uint64_t recursion(uint64_t rounds) {
  static std::array<uint32_t, 20'000> numbers;
  uint64_t sum = 0;
  uint32_t random = 1;
  for (uint64_t round = 0; round < rounds; ++round) {
    for (uint32_t& number : numbers) number = random = random * 1664525 + 1013904223;
    sort(numbers.data(), numbers.data() + numbers.size());
    sum = sum * 31 + numbers[numbers.size() / 2];
  }
  return sum;
}

[[gnu::noinline]] uint64_t add(uint64_t x) {
  return x + 1;
}
[[gnu::noinline]] uint64_t rotate(uint64_t x) {
  return x << 7 | x >> 57;
}
[[gnu::noinline]] uint64_t multiply(uint64_t x) {
  return x * 0x9e3779b97f4a7c15ull;
}

uint64_t (*volatile operations[])(uint64_t) = {add, rotate, multiply};

[[gnu::noinline]] uint64_t operate(uint64_t x) {
  for (unsigned i = 0; i < 20'000; ++i) x = operations[i % 3](x);
  return x;
}

uint64_t indirect(uint64_t rounds) {
  uint64_t x = 1;
  for (uint64_t round = 0; round < rounds; ++round) x = operate(x);
  return x;
}

volatile sig_atomic_t alarms = 0;

void on_alarm(int /*signal*/) {
  static Words words;
  mix_words(words);
  alarms = alarms + 1;
}

uint64_t handlers(uint64_t rounds) {
  struct sigaction action {};
  action.sa_handler = on_alarm;
  sigaction(SIGALRM, &action, nullptr);
  const itimerval every = {{0, 50'000}, {0, 50'000}};
  setitimer(ITIMER_REAL, &every, nullptr);
  const uint64_t result = nested(rounds);
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  std::printf("compute alarms=%d\n", static_cast<int>(alarms));
  return result;
}

// Three processes with the same code, one of which has executed the program anew.
uint64_t forks(uint64_t rounds, const char* program) {
  const pid_t same = fork();
  if (same == 0) _exit(nested(rounds) == 0 ? 1 : 0);
  const pid_t anew = fork();
  if (anew == 0) {
    std::array<char, 24> count{};
    std::snprintf(count.data(), count.size(), "%lu", rounds);
    execl(program, program, "nested", count.data(), nullptr);
    _exit(1);
  }
  const uint64_t result = nested(rounds);
  for (const pid_t child : {same, anew}) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) std::exit(1);
  }
  return result;
}

[[gnu::noinline]] uint64_t sum_of_code() {
  uint64_t sum = 0;
  for (const volatile unsigned char* byte = __executable_start; byte != etext; ++byte) sum = sum * 31 + *byte;
  return sum;
}

// Reads its own code, which is as it was built.
uint64_t own_code(uint64_t rounds) {
  const uint64_t first = sum_of_code();
  for (uint64_t round = 0; round < rounds; ++round)
    if (sum_of_code() != first) {
      std::printf("compute: the code has changed in round %lu\n", round);
      std::exit(1);
    }
  return 1;
}

// Comes to no address seldom, until it is at its end.
uint64_t flat(uint64_t rounds) {
  uint64_t x = 1;
  for (uint64_t i = 0; i < rounds * 100'000; ++i) x = (x ^ i) * 0x9e3779b97f4a7c15ull;
  return x;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string_view kind = argv[1];
  const uint64_t rounds = std::strtoull(argv[2], nullptr, 10);
  uint64_t result = 0;
  if (kind == "nested") result = nested(rounds);
  if (kind == "matrices") result = matrices(rounds);
  if (kind == "recursion") result = recursion(rounds);
  if (kind == "indirect") result = indirect(rounds);
  if (kind == "handlers") result = handlers(rounds);
  if (kind == "forks") result = forks(rounds, "/bin/compute");
  if (kind == "own_code") result = own_code(rounds);
  if (kind == "flat") result = flat(rounds);
  std::printf("compute %s rounds=%lu result=%#lx\n", argv[1], rounds, result);
  return result == 0 ? 1 : 0;
}
