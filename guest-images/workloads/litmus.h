// Litmus tests: a few instructions on each of a few CPUs, run very often, and a count of the outcomes.
//
// A Test defines: kName, kRoles, kVariables, kRegisters; run(role, variables, registers, i), the instructions
// of one role on cell i (registers hold 0 or 1); and forbidden(outcome), where bit r of the outcome is
// register r: can sequential consistency not explain it? kForbiddenByTso: nor can x86's memory model.
//
// Each variable and each register is an array of cells on pages of its own. The roles sweep over the
// cells without meeting, and meet only after each sweep: that gives far more interleavings than a
// barrier for each cell. Each group of kRoles workers has its own arrays. On a machine with fewer CPUs
// than roles, a worker plays several roles, one sweep each.
#pragma once

#include "kernel/layout.h"
#include "runtime/barrier.h"
#include "runtime/checksum.h"
#include "runtime/own_page.h"
#include "runtime/racy.h"
#include "runtime/workload.h"

namespace reprise::guest {

// A sweep at most, and if nothing is said: long enough that the workers of a group are in it at the same
// time, though they enter it one after the other.
inline constexpr uint64_t kCells = 16384;

struct alignas(kPage) Cells {
  uint32_t cell[kCells];
};

// One group's memory. `Test` as above.
template <typename Test>
struct LitmusGroup {
  Cells variable[Test::kVariables];
  Cells registers[Test::kRegisters];
  OwnPage<Barrier> barrier;
  alignas(kPage) uint64_t outcomes[1 << Test::kRegisters];
};

template <typename Test>
void sweep(LitmusGroup<Test>& group, uint32_t role, uint64_t cells) {
  for (uint64_t i = 0; i < cells; ++i) Test::run(role, group.variable, group.registers, i);
}

// Counts the outcomes of a sweep and clears the variables for the next.
template <typename Test>
void collect(LitmusGroup<Test>& group, uint64_t cells) {
  for (uint64_t i = 0; i < cells; ++i) {
    uint32_t outcome = 0;
    for (int r = 0; r < Test::kRegisters; ++r) outcome |= group.registers[r].cell[i] << r;
    ++group.outcomes[outcome];
    for (Cells& variable : group.variable) variable.cell[i] = 0;
  }
}

// What one worker does: `member` of `members` in its group.
template <typename Test>
void play(LitmusGroup<Test>& group, uint32_t member, uint32_t members, uint64_t n, uint64_t longest) {
  for (uint64_t done = 0; done < n; done += longest) {
    const uint64_t cells = n - done < longest ? n - done : longest;
    for (uint32_t role = member; role < Test::kRoles; role += members) sweep(group, role, cells);
    group.barrier->wait();
    if (member == 0) collect(group, cells);
    group.barrier->wait();
  }
}

// Prints the histogram over all groups; returns how many outcomes sequential consistency cannot explain.
template <typename Test>
uint64_t report(LitmusGroup<Test>* groups, uint32_t number_of_groups) {
  uint64_t violations = 0;
  Checksum checksum;
  for (uint32_t outcome = 0; outcome < 1u << Test::kRegisters; ++outcome) {
    uint64_t count = 0;
    for (uint32_t g = 0; g < number_of_groups; ++g) {
      count += groups[g].outcomes[outcome];
      checksum.add(groups[g].outcomes[outcome]);
    }
    if (Test::forbidden(outcome)) violations += count;
    Line line;
    line.add("outcome");
    for (int r = 0; r < Test::kRegisters; ++r) {
      line.add(" r");
      line.add(static_cast<uint32_t>(r));
      line.add("=");
      line.add(outcome >> r & 1);
    }
    line.add(": ");
    line.add(count);
    line.add(Test::forbidden(outcome) ? " (not sequentially consistent)\n" : "\n");
  }
  print("not_sequentially_consistent=", violations, "\nchecksum=", hex(checksum.value()), "\n");
  return violations;
}

template <typename Test>
uint32_t run_litmus(const Arguments& arguments) {
  static constinit LitmusGroup<Test> groups[MAX_CPUS / Test::kRoles] = {};
  const uint64_t n = arguments.number("n", 2'000'000);
  const uint64_t asked = arguments.number("sweep", kCells);
  const uint64_t sweep = asked == 0 || asked > kCells ? kCells : asked;
  const uint32_t members = cpus() < Test::kRoles ? cpus() : Test::kRoles;
  const uint32_t number_of_groups =
      cpus() / members < MAX_CPUS / Test::kRoles ? cpus() / members : MAX_CPUS / Test::kRoles;
  print(Test::kName, " cpus=", cpus(), " n=", n, " sweep=", sweep, " groups=", number_of_groups, "\n");
  if (members < Test::kRoles) print("note: ", uint32_t{Test::kRoles}, " roles share ", members, " CPUs\n");

  for (uint32_t g = 0; g < number_of_groups; ++g) groups[g].barrier->set_workers(members);
  parallel(number_of_groups * members,
           [=](uint32_t worker) { play(groups[worker / members], worker % members, members, n, sweep); });

  const uint64_t violations = report(groups, number_of_groups);
  if (Test::kForbiddenByTso && violations != 0) {
    print("FAILED: this machine does not keep the memory order of x86\n");
    return kExitWrongResult;
  }
  return status_of_race(arguments, violations != 0);
}

}  // namespace reprise::guest
