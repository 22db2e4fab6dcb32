// Litmus test "independent reads of independent writes": two writers, two readers.
//
//     CPU 0: x = 1    CPU 1: y = 1    CPU 2: r0 = x; r1 = y    CPU 3: r2 = y; r3 = x
//
// r0 = 1, r1 = 0, r2 = 1, r3 = 0: the readers disagree about which write came first. x86 has one order
// of stores for all CPUs, so it must not happen.
//
// Parameters: n (cells, 2000000), sweep (cells between two meetings, 16384), sweep (cells between two
// meetings, 16384).
#include "workloads/litmus.h"

namespace reprise::guest {
namespace {

struct IndependentReads {
  static constexpr const char* kName = "iriw";
  static constexpr uint32_t kRoles = 4;
  static constexpr int kVariables = 2, kRegisters = 4;
  static constexpr bool kForbiddenByTso = true;

  static void run(uint32_t role, Cells* variable, Cells* registers, uint64_t i) {
    if (role < 2) return racy_store(variable[role].cell[i], 1);
    const uint32_t reader = role - 2;
    const uint32_t first = racy_load(variable[reader].cell[i]);
    asm volatile("" ::: "memory");
    const uint32_t second = racy_load(variable[1 - reader].cell[i]);
    registers[2 * reader].cell[i] = first;
    registers[2 * reader + 1].cell[i] = second;
  }
  static bool forbidden(uint32_t outcome) { return outcome == 0b0101; }
};

}  // namespace

uint32_t workload(const Arguments& arguments) {
  return run_litmus<IndependentReads>(arguments);
}

}  // namespace reprise::guest
