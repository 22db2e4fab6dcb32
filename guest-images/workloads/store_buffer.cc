// Litmus test "store buffering": each CPU stores to one variable, then loads the other.
//
//     CPU 0: x = 1; r0 = y        CPU 1: y = 1; r1 = x
//
// r0 = r1 = 0 has no sequential explanation, yet a real x86 shows it: stores wait in a buffer while
// later loads go ahead. A recorder that orders accesses by page ownership must never show it.
//
// Parameters: n (cells, 2000000), sweep (cells between two meetings, 16384), strict.
#include "workloads/litmus.h"

namespace reprise::guest {
namespace {

struct StoreBuffer {
  static constexpr const char* kName = "store_buffer";
  static constexpr uint32_t kRoles = 2;
  static constexpr int kVariables = 2, kRegisters = 2;
  static constexpr bool kForbiddenByTso = false;

  static void run(uint32_t role, Cells* variable, Cells* registers, uint64_t i) {
    racy_store(variable[role].cell[i], 1);
    registers[role].cell[i] = racy_load(variable[1 - role].cell[i]);
  }
  static bool forbidden(uint32_t outcome) { return outcome == 0; }
};

}  // namespace

uint32_t workload(const Arguments& arguments) {
  return run_litmus<StoreBuffer>(arguments);
}

}  // namespace reprise::guest
