// Heat flow on a square plate: each step replaces every point by the mean of its four neighbours (Jacobi's
// method), as in SPLASH-2's OCEAN. Workers own bands of rows; neighbours read each other's edge rows.
//
// Parameters: n (rows and columns, 512), steps (100), check (1: compare with a run on one CPU).
#include "runtime/barrier.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/partition.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

OwnPage<Barrier> barrier;

// Rows start on pages.
struct Plate {
  uint64_t n, stride;
  double* point;

  explicit Plate(uint64_t side)
      : n(side),
        stride((side * sizeof(double) + kPage - 1) / kPage * (kPage / sizeof(double))),
        point(allocate_array<double>(side * stride)) {}

  double* row(uint64_t i) const { return point + i * stride; }
};

// Hot along the top, cold elsewhere, and a hot spot inside.
void heat(const Plate& plate, Range rows) {
  for (uint64_t i = rows.begin; i < rows.end; ++i) {
    for (uint64_t j = 0; j < plate.n; ++j)
      plate.row(i)[j] = i == 0 || (i == plate.n / 2 && j == plate.n / 3) ? 1000 : 0;
  }
}

void step(const Plate& to, const Plate& from, Range rows) {
  for (uint64_t i = rows.begin; i < rows.end; ++i) {
    if (i == 0 || i == from.n - 1) continue;  // the edge keeps its temperature
    const double *above = from.row(i - 1), *here = from.row(i), *below = from.row(i + 1);
    double* result = to.row(i);
    for (uint64_t j = 1; j + 1 < from.n; ++j)
      result[j] = 0.25 * (above[j] + below[j] + here[j - 1] + here[j + 1]);
  }
}

// Leaves the result in `first` if `steps` is even, else in `second`.
void simulate(const Plate& first, const Plate& second, Range rows, uint64_t steps, bool alone) {
  heat(first, rows);
  heat(second, rows);
  if (!alone) barrier->wait();
  for (uint64_t done = 0; done < steps; ++done) {
    if (done % 2 == 0) {
      step(second, first, rows);
    } else {
      step(first, second, rows);
    }
    if (!alone) barrier->wait();
  }
}

uint64_t checksum_of(const Plate& plate) {
  Checksum checksum;
  for (uint64_t i = 0; i < plate.n; ++i) {
    for (uint64_t j = 0; j < plate.n; ++j) checksum.add(plate.row(i)[j]);
  }
  return checksum.value();
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t n = arguments.number("n", 512), steps = arguments.number("steps", 100);
  const bool check = arguments.number("check", 1) != 0;
  if (n < 3) panic("n= must be at least 3");
  const uint32_t workers = cpus();
  print("stencil cpus=", workers, " n=", n, " steps=", steps, "\n");
  const Plate first(n), second(n);
  barrier->set_workers(workers);

  parallel(workers,
           [=](uint32_t worker) { simulate(first, second, share_of(worker, workers, n), steps, false); });

  const uint64_t checksum = checksum_of(steps % 2 == 0 ? first : second);
  for (uint32_t worker = 0; worker < workers; ++worker) {
    const Range rows = share_of(worker, workers, n);
    print("worker ", worker, ": rows=", rows.end - rows.begin, "\n");
  }
  bool right = true;
  if (check) {
    const Plate other_first(n), other_second(n);
    simulate(other_first, other_second, {0, n}, steps, true);
    right = checksum_of(steps % 2 == 0 ? other_first : other_second) == checksum;
  }
  print("checksum=", hex(checksum), right ? "\n" : "\nFAILED: one CPU alone gets another result\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
