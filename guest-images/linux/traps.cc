// traps: what a program does to a debugger, each once, at places that have names for it: an int3 of its own,
// with a handler for SIGTRAP; system calls by syscall and int 0x80; string instructions that write a word
// which may be watched. Prints one line; exit status 0 if all went as it must.
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// The watched word is the first of its last page.
extern "C" {
alignas(4096) unsigned char watched_pages[3 * 4096];
}

namespace {

uint64_t* const watched = reinterpret_cast<uint64_t*>(watched_pages + 2 * 4096);
constexpr uint64_t kCounts[] = {1, 64, 65, 4096};
volatile sig_atomic_t trapped = 0;

unsigned char source[4096];

void on_trap(int /*signal*/) {
  trapped = trapped + 1;
}

[[gnu::noinline]] long call_by_int80(long number) {
  long result = number;
  asm volatile(".globl at_int80\nat_int80: int $0x80\n.globl behind_int80\nbehind_int80:"
               : "+a"(result)
               :
               : "memory", "r8", "r9", "r10", "r11");
  return result;
}

[[gnu::noinline]] long call_by_syscall(long number) {
  long result = number;
  asm volatile(".globl at_syscall\nat_syscall: syscall\n.globl behind_syscall\nbehind_syscall:"
               : "+a"(result)
               :
               : "memory", "rcx", "r11");
  return result;
}

[[gnu::noinline]] void break_once() {
  asm volatile(
      ".globl before_int3, at_int3, behind_int3\n"
      "before_int3: nop\nat_int3: int3\nbehind_int3: nop" ::
          : "memory");
}

}  // namespace

int main() {
  struct sigaction action {};
  action.sa_handler = on_trap;
  sigaction(SIGTRAP, &action, nullptr);
  for (int i = 0; i < 3; ++i) break_once();
  const bool same = call_by_syscall(39) == getpid() && call_by_int80(20) == getpid();
  // The last bytes that each writes are those of the watched word.
  unsigned char value = 1;
  for (const uint64_t count : kCounts) {
    auto* const end = reinterpret_cast<unsigned char*>(watched) + (count == 1 ? 1 : 8);
    void* to = end - count;
    uint64_t left = count;
    asm volatile("rep stosb" : "+D"(to), "+c"(left) : "a"(value++) : "memory");
    for (unsigned char& byte : source) byte = value;
    ++value;
    to = end - count;
    left = count;
    const void* from = source;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(left) : : "memory");
  }
  std::printf("traps: %d of 3, %s, the word is %#lx\n", static_cast<int>(trapped), same ? "equal" : "other",
              *watched);
  return trapped == 3 && same && *watched == 0x0808080808080808 ? 0 : 1;
}
