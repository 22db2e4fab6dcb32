// Litmus test "message passing": data, then a flag that says it is there.
//
//     CPU 0: data = 1; flag = 1        CPU 1: r0 = flag; r1 = data
//
// r0 = 1 with r1 = 0 would be a flag without its data. x86 keeps stores in order and loads in order,
// so it must not happen on any machine that claims to be one.
//
// Parameters: n (cells, 2000000), sweep (cells between two meetings, 16384).
#include "workloads/litmus.h"

namespace reprise::guest {
namespace {

struct MessagePassing {
  static constexpr const char* kName = "message_passing";
  static constexpr uint32_t kRoles = 2;
  static constexpr int kVariables = 2, kRegisters = 2;
  static constexpr bool kForbiddenByTso = true;

  static void run(uint32_t role, Cells* variable, Cells* registers, uint64_t i) {
    Cells &data = variable[0], &flag = variable[1];
    if (role == 0) {
      racy_store(data.cell[i], 1);
      asm volatile("" ::: "memory");  // the compiler must keep the order too
      racy_store(flag.cell[i], 1);
    } else {
      const uint32_t saw_flag = racy_load(flag.cell[i]);
      asm volatile("" ::: "memory");
      const uint32_t saw_data = racy_load(data.cell[i]);
      registers[0].cell[i] = saw_flag;
      registers[1].cell[i] = saw_data;
    }
  }
  static bool forbidden(uint32_t outcome) { return outcome == 0b01; }
};

}  // namespace

uint32_t workload(const Arguments& arguments) {
  return run_litmus<MessagePassing>(arguments);
}

}  // namespace reprise::guest
