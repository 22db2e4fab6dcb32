// Access decoding against the processor this test runs on.
//
// An instruction runs natively, with single-step on, in an arena whose pages are all PROT_NONE. Each fault
// names a page and whether it was written; the handler grants just that and lets the instruction go on. What
// was collected until the single-step trap is what the instruction touches: truth, to which decode_access()
// is compared. The arena's addresses serve as guest-physical ones (paging off in the decoded state).
#include <asm/prctl.h>
#include <cpuid.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "x86/access.h"
#include "x86/instruction.h"

namespace reprise::x86 {
namespace {

constexpr uint64_t kArena = 0x2000'0000;  // below 4 GiB, so that 32-bit code can use it
constexpr uint64_t kArenaPages = 64;
constexpr uint64_t kArenaBytes = kArenaPages * kPageSize;
constexpr uint64_t kCode = kArena + 4 * kPageSize;
constexpr uint64_t kGsBase = kArena + 40 * kPageSize;
constexpr uint64_t kTrapFlag = 1 << 8;

// Selectors that Linux gives to user code. Source: Linux arch/x86/include/asm/segment.h.
constexpr uint16_t kUserCode64 = 0x33, kUserCode32 = 0x23, kUserData = 0x2b;

enum class Mode { k64, k32 };

struct Trial {
  Mode mode = Mode::k64;
  std::vector<uint8_t> code;
  CpuState state;
};

using PageRights = std::map<uint64_t, Right>;  // by page of the arena

enum class Ending : int { kRunning, kStepped, kOtherException, kStray };

// --- what the signal handlers share with the trial; one trial at a time ---
const Trial* g_trial;
volatile Ending g_ending;
volatile uint8_t g_touched[kArenaPages];  // as Right
greg_t g_saved[NGREG];
uint8_t* g_arena;   // at kArena
uint8_t* g_shadow;  // the arena again, always readable and writable

constexpr int kRegisterSlots[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

void start_trial(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  std::memcpy(g_saved, registers, sizeof g_saved);
  for (int i = 0; i < 16; ++i)
    registers[kRegisterSlots[i]] = static_cast<greg_t>(g_trial->state.registers[static_cast<size_t>(i)]);
  registers[REG_RIP] = static_cast<greg_t>(g_trial->state.rip);
  registers[REG_EFL] = static_cast<greg_t>(g_trial->state.rflags | kTrapFlag);
  if (g_trial->mode == Mode::k32)
    registers[REG_CSGSFS] = static_cast<greg_t>(kUserCode32 | static_cast<uint64_t>(kUserData) << 48);
}

void end_trial(void* context, Ending ending) {
  g_ending = ending;
  std::memcpy(static_cast<ucontext_t*>(context)->uc_mcontext.gregs, g_saved, sizeof g_saved);
}

void on_step(int, siginfo_t*, void* context) {
  end_trial(context, Ending::kStepped);
}

void on_fault(int number, siginfo_t* info, void* context) {
  constexpr greg_t kPageFaultTrap = 14, kWriteFault = 2;
  const greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (number != SIGSEGV || registers[REG_TRAPNO] != kPageFaultTrap)
    return end_trial(context, Ending::kOtherException);
  const uint64_t offset = reinterpret_cast<uint64_t>(info->si_addr) - kArena;
  if (offset >= kArenaBytes) return end_trial(context, Ending::kStray);
  const bool write = (registers[REG_ERR] & kWriteFault) != 0;
  volatile uint8_t& touched = g_touched[offset / kPageSize];
  const auto right = static_cast<uint8_t>(write ? Right::kWrite : Right::kRead);
  if (touched >= right) return end_trial(context, Ending::kStray);  // granted already: would fault for ever
  touched = right;
  mprotect(g_arena + offset / kPageSize * kPageSize, kPageSize,
           PROT_READ | PROT_EXEC | (write ? PROT_WRITE : 0));
}

bool set_up_arena() {
  const int fd = memfd_create("arena", 0);
  if (fd < 0 || ftruncate(fd, kArenaBytes) != 0) return false;
  void* shadow = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  void* arena =
      mmap(std::bit_cast<void*>(kArena), kArenaBytes, PROT_NONE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
  if (shadow == MAP_FAILED || arena == MAP_FAILED) return false;
  g_arena = static_cast<uint8_t*>(arena);
  g_shadow = static_cast<uint8_t*>(shadow);
  static uint8_t signal_stack[256 * 1024];
  const stack_t stack{.ss_sp = signal_stack, .ss_flags = 0, .ss_size = sizeof signal_stack};
  if (sigaltstack(&stack, nullptr) != 0) return false;
  const auto install = [](int number, void (*handler)(int, siginfo_t*, void*)) {
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    return sigaction(number, &action, nullptr) == 0;
  };
  bool ok = install(SIGUSR1, start_trial) && install(SIGTRAP, on_step);
  for (const int number : {SIGSEGV, SIGILL, SIGFPE, SIGBUS}) ok = ok && install(number, on_fault);
  ok = ok && syscall(SYS_arch_prctl, ARCH_SET_GS, kGsBase) == 0;
  // 64-bit code does not mind DS and ES, 32-bit code needs them.
  asm volatile("mov %0, %%ds\n\tmov %0, %%es" ::"r"(static_cast<uint32_t>(kUserData)));
  return ok;
}

// The arena before each trial: the code, and zeros, so that what is popped or loaded is harmless.
void fill_arena(const Trial& trial) {
  std::memset(g_shadow, 0, kArenaBytes);
  std::memcpy(g_shadow + (trial.state.rip - kArena), trial.code.data(), trial.code.size());
}

Ending run_natively(const Trial& trial, PageRights& touched) {
  fill_arena(trial);
  std::memset(const_cast<uint8_t*>(g_touched), 0, sizeof g_touched);
  mprotect(g_arena, kArenaBytes, PROT_NONE);
  g_trial = &trial;
  g_ending = Ending::kRunning;
  raise(SIGUSR1);  // start_trial() leaves for the trial; one of the endings returns here
  const uint32_t default_mxcsr = 0x1f80;
  asm volatile("fninit\n\tldmxcsr %0" ::"m"(default_mxcsr));
  for (uint64_t page = 0; page < kArenaPages; ++page)
    if (g_touched[page] != 0) touched[page] = static_cast<Right>(g_touched[page]);
  return g_ending;
}

// --- the other side ---

class ArenaReader : public PhysicalReader {
 public:
  bool read(Gpa gpa, std::span<uint8_t> out) const override {
    if (gpa.raw < kArena || gpa.raw - kArena > kArenaBytes - out.size()) return false;
    std::memcpy(out.data(), g_shadow + (gpa.raw - kArena), out.size());
    return true;
  }
};

uint32_t xsave_bytes() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __cpuid_count(0xd, 0, a, b, c, d);
  return b;
}

Vendor host_vendor() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __cpuid(0, a, b, c, d);
  return vendor_of(b, d, c);
}

CpuState user_state(Mode mode) {
  CpuState state;
  state.vendor = host_vendor();
  state.rip = kCode;
  state.rflags = 0x202;
  state.cr0 = kCr0ProtectionEnable;
  state.efer = kEferLongModeActive;
  state.cs.long_mode = mode == Mode::k64;
  state.cs.default_32 = state.ss.default_32 = mode == Mode::k32;
  state.cs.selector = mode == Mode::k64 ? kUserCode64 : kUserCode32;
  state.gs.base = kGsBase;
  state.fs.base = 0x7000'0000'0000;  // the C library's: never in the arena
  state.cpl = 3;
  for (size_t i = 0; i < 16; ++i) state.registers[i] = kArena + (8 + 2 * i) * kPageSize + 0x100;
  return state;
}

std::string describe(const PageRights& rights) {
  std::string text;
  for (const auto& [page, right] : rights)
    text += fmt::format(" {}{}", page, right == Right::kWrite ? 'w' : 'r');
  return text;
}

std::string describe(const Trial& trial) {
  std::string text = trial.mode == Mode::k64 ? "64-bit" : "32-bit";
  for (const uint8_t byte : trial.code) text += fmt::format(" {:02x}", byte);
  text += fmt::format(" at {:#x} rflags {:#x} registers", trial.state.rip, trial.state.rflags);
  for (const uint64_t value : trial.state.registers) text += fmt::format(" {:x}", value);
  return text;
}

// True when decoding answered with pages that all lie in the arena: only such trials are run.
bool predict(const Trial& trial, PageRights& predicted) {
  fill_arena(trial);
  AccessOptions options;
  static const uint32_t host_xsave_bytes = xsave_bytes();
  options.xsave_bytes = host_xsave_bytes;
  const auto set = decode_access(trial.state, ArenaReader(), options);
  if (!set || !set->complete || set->exception) return false;
  for (const PageRight& access : set->pages()) {
    const uint64_t page = access.page.raw - page_of(Gpa(kArena)).raw;
    if (page >= kArenaPages) return false;
    predicted[page] = access.right;
  }
  return true;
}

// Empty when decoding and processor agree. `exact`: the instruction has no part that it may leave out.
std::string compare(const Trial& trial, const PageRights& predicted, bool exact, Ending& ending) {
  PageRights touched;
  ending = run_natively(trial, touched);
  const auto report = [&](const char* what) {
    return fmt::format("{}: {}\n  decoded:{}\n  processor:{}\n", what, describe(trial), describe(predicted),
                       describe(touched));
  };
  if (ending == Ending::kStray) return report("touches memory that was not foreseen");
  if (exact && ending == Ending::kStepped) return touched == predicted ? "" : report("differs");
  for (const auto& [page, right] : touched) {
    const auto found = predicted.find(page);
    if (found == predicted.end() || found->second < right) return report("omits a page");
  }
  return "";
}

// Whether 32-bit code runs at all: where the kernel is itself a guest of a software hypervisor, its
// descriptor table may lack the segment.
bool can_run(Mode mode) {
  Trial trial{mode, {0x90}, user_state(mode)};
  PageRights touched;
  return run_natively(trial, touched) == Ending::kStepped;
}

// Runs `body` in a child, since a wrong answer may let an instruction write anywhere; what it returns, or
// that it died, is the complaint.
template <typename Body>
std::string in_child(Body body) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    const std::string complaint = set_up_arena() ? body() : "SKIP: the arena's address is taken";
    if (write(ends[1], complaint.data(), complaint.size()) < 0) _exit(2);
    _exit(0);
  }
  close(ends[1]);
  std::string complaint;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    complaint.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    complaint += fmt::format("the child died, status {:#x}", status);
  return complaint;
}

// --- random instructions ---

using Random = std::mt19937_64;

uint64_t below(Random& random, uint64_t bound) {
  return random() % bound;
}

// An encoding that has a fair chance of being an instruction with a small displacement.
std::vector<uint8_t> random_code(Random& random, Mode mode) {
  std::vector<uint8_t> code;
  const auto put = [&](std::initializer_list<unsigned> bytes) {
    for (const unsigned byte : bytes) code.push_back(static_cast<uint8_t>(byte));
  };
  const auto any = [&] { return static_cast<unsigned>(below(random, 256)); };
  static constexpr uint8_t kPrefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x65, 0x67, 0x66, 0xf0};
  const uint64_t kind = below(random, 100);
  const bool vector = kind >= 84;
  if (!vector && below(random, 2) == 0) put({kPrefixes[below(random, std::size(kPrefixes))]});
  if (!vector && mode == Mode::k64 && below(random, 2) == 0) put({0x40u | any() % 16});
  if (kind < 45)
    put({any()});
  else if (kind < 75)
    put({0x0f, any()});
  else if (kind < 80)
    put({0x0f, 0x38, any()});
  else if (kind < 84)
    put({0x0f, 0x3a, any()});
  else if (kind < 92)
    put({0xc4, 0xe1u + any() % 3, any() | (any() % 2) * 0x78, any()});
  else
    put({0x62, 0xf1u + any() % 3, any() | 0x04 | (any() % 2) * 0x78, 0x08u | (any() & 0x77), any()});
  put({below(random, 5) == 0 ? any() : any() & 0xbf});  // ModRM, mostly memory
  put({any(), any() & 0x1f, any() & 1, 0, any(), 0});
  return code;
}

// Registers that make most operands fall into the arena, often at the edges of its pages.
void randomise_registers(Random& random, CpuState& state) {
  for (uint64_t& value : state.registers) {
    const uint64_t page = 8 + below(random, 48);
    const uint64_t choice = below(random, 5);
    uint64_t offset = below(random, kPageSize);
    if (choice == 0) offset = kPageSize - 1 - below(random, 40);
    if (choice == 1) offset &= ~63ull;
    value = kArena + page * kPageSize + offset;
    if (choice == 4) value = below(random, 300);
  }
  state.registers[kRsp] = kArena + (20 + below(random, 20)) * kPageSize + below(random, 600) * 8;
  if (below(random, 2) == 0) state.registers[kRcx] = below(random, 3);
  state.rflags = 0x202 | (random() & 0x8d5) | (below(random, 2) << 10);
  state.rip = kCode + (below(random, 4) == 0 ? kPageSize - 1 - below(random, 12) : below(random, 3000));
}

// What must not run here: it leaves user mode, changes what the handlers stand on, or blinds single-step.
bool harmless(const Instruction& instruction) {
  switch (instruction.decoded.meta.category) {
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_PKU:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_SGX:
    case ZYDIS_CATEGORY_UINTR:
      return false;
    default:
      break;
  }
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_CPUID:  // a hypervisor that emulates it may swallow the trap of single-step
    case ZYDIS_MNEMONIC_XBEGIN:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
      return false;
    default:
      break;
  }
  if (instruction.decoded.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return false;
  return std::ranges::none_of(instruction.operands(),
                              [&](const auto& operand) { return instruction.loads_segment(operand); });
}

// False where decoding lists more than needed on purpose.
bool is_exact(const Instruction& instruction) {
  switch (instruction.mnemonic()) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_BNDMOV:
    case ZYDIS_MNEMONIC_ENTER:  // the probe of the new top: Intel makes it, others may not
      return false;
    case ZYDIS_MNEMONIC_MOVSXD:
      return instruction.decoded.operand_width != 16;
    default:
      break;
  }
  const ZydisDecodedInstruction& decoded = instruction.decoded;
  const bool masked = decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
                      decoded.avx.mask.reg != ZYDIS_REGISTER_NONE &&
                      decoded.avx.mask.reg != ZYDIS_REGISTER_K0;
  return !masked && decoded.meta.category != ZYDIS_CATEGORY_XSAVE &&
         decoded.meta.category != ZYDIS_CATEGORY_XSAVEOPT;
}

struct Tally {
  int run = 0, stepped = 0, with_data = 0;
  std::map<int, int> mnemonics;
};

std::string random_trials(Mode mode, int wanted, uint64_t seed, Tally& tally) {
  Random random(seed);
  std::string complaints;
  int complained = 0;
  while (tally.run < wanted && complained < 10) {
    Trial trial{mode, random_code(random, mode), user_state(mode)};
    Instruction instruction;
    if (decode(trial.state, trial.code, instruction) != DecodeOutcome::kDecoded || !harmless(instruction))
      continue;
    trial.code.resize(instruction.length());
    randomise_registers(random, trial.state);
    if (mode == Mode::k32)
      for (size_t i = 8; i < 16; ++i) trial.state.registers[i] = 0;
    PageRights predicted;
    if (!predict(trial, predicted)) continue;
    Ending ending = Ending::kRunning;
    const std::string complaint = compare(trial, predicted, is_exact(instruction), ending);
    if (!complaint.empty()) {
      complaints += fmt::format("{}: {}", ZydisMnemonicGetString(instruction.mnemonic()), complaint);
      ++complained;
    }
    ++tally.run;
    tally.stepped += ending == Ending::kStepped ? 1 : 0;
    tally.with_data += predicted.size() > 1 ? 1 : 0;
    ++tally.mnemonics[instruction.mnemonic()];
  }
  return complaints;
}

int trials_wanted() {
  const char* text = std::getenv("REPRISE_ORACLE_TRIALS");
  return text != nullptr ? std::atoi(text) : 6000;
}

uint64_t seed_wanted() {
  const char* text = std::getenv("REPRISE_ORACLE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : 20081;
}

void expect_random_trials_agree(Mode mode) {
  const std::string complaints = in_child([mode] {
    if (mode == Mode::k32 && !can_run(mode))
      return std::string("SKIP: this host's kernel runs no 32-bit code in user mode");
    Tally tally;
    std::string text = random_trials(mode, trials_wanted(), seed_wanted(), tally);
    fmt::print("{} instructions run, {} completed, {} with two pages or more, {} mnemonics\n", tally.run,
               tally.stepped, tally.with_data, tally.mnemonics.size());
    fflush(stdout);
    if (tally.stepped * 2 < tally.run) text += "more than half of the instructions did not complete\n";
    return text;
  });
  if (complaints.starts_with("SKIP")) GTEST_SKIP() << complaints;
  EXPECT_EQ(complaints, "");
}

TEST(AccessOracleTest, RandomInstructionsAgreeWithProcessorIn64BitMode) {
  expect_random_trials_agree(Mode::k64);
}

TEST(AccessOracleTest, RandomInstructionsAgreeWithProcessorIn32BitMode) {
  expect_random_trials_agree(Mode::k32);
}

}  // namespace
}  // namespace reprise::x86
