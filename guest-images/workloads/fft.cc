// Fast Fourier transform of a complex signal in six steps, after SPLASH-2's FFT: the n points are a square
// matrix, workers own rows, and the transposes are where everybody reads everybody's rows.
//
// Parameters: n (points, 262144; rounded down to a power of 4, at least 64), seed (1).
#include "runtime/barrier.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/partition.h"
#include "runtime/random.h"
#include "runtime/real.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

OwnPage<Barrier> barrier;

struct Problem {
  uint64_t side;    // power of 2; n = side * side
  Complex* signal;  // row after row
  Complex* scratch;
  Complex* roots;      // exp(-2 pi i k / n)
  Complex* row_roots;  // exp(-2 pi i k / side)
};

// to = transpose of from, rows `rows` of `to`, in squares that fit the cache.
void transpose(Complex* to, const Complex* from, uint64_t side, Range rows) {
  constexpr uint64_t kTile = 8;
  for (uint64_t column = 0; column < side; column += kTile) {
    for (uint64_t i = rows.begin; i < rows.end; ++i) {
      for (uint64_t j = column; j < column + kTile; ++j) to[i * side + j] = from[j * side + i];
    }
  }
}

// In place, decimation in time.
void transform_row(Complex* row, const Complex* roots, uint64_t side) {
  for (uint64_t i = 1, reversed = 0; i < side; ++i) {
    uint64_t bit = side / 2;
    for (; reversed & bit; bit /= 2) reversed ^= bit;
    reversed |= bit;
    if (i < reversed) {
      const Complex swapped = row[i];
      row[i] = row[reversed];
      row[reversed] = swapped;
    }
  }
  for (uint64_t half = 1; half < side; half *= 2) {
    const uint64_t stride = side / (2 * half);
    for (uint64_t start = 0; start < side; start += 2 * half) {
      for (uint64_t k = 0; k < half; ++k) {
        const Complex even = row[start + k], odd = row[start + half + k] * roots[k * stride];
        row[start + k] = even + odd;
        row[start + half + k] = even - odd;
      }
    }
  }
}

// The transform of p.signal, into p.scratch.
void transform(const Problem& p, Range rows) {
  const uint64_t side = p.side;
  transpose(p.scratch, p.signal, side, rows);
  for (uint64_t i = rows.begin; i < rows.end; ++i) {
    Complex* row = p.scratch + i * side;
    transform_row(row, p.row_roots, side);
    for (uint64_t j = 0; j < side; ++j) row[j] = row[j] * p.roots[i * j];
  }
  barrier->wait();
  transpose(p.signal, p.scratch, side, rows);
  for (uint64_t i = rows.begin; i < rows.end; ++i) transform_row(p.signal + i * side, p.row_roots, side);
  barrier->wait();
  transpose(p.scratch, p.signal, side, rows);
  barrier->wait();
}

// Conjugates and scales the worker's rows: inverse = conjugate, transform, conjugate, divide by n.
void conjugate(Complex* data, uint64_t side, Range rows, double scale) {
  for (uint64_t i = rows.begin * side; i < rows.end * side; ++i)
    data[i] = {data[i].real * scale, -data[i].imaginary * scale};
}

// Back again, into p.signal.
void transform_back(const Problem& p, Range rows) {
  conjugate(p.scratch, p.side, rows, 1);
  barrier->wait();
  transform({p.side, p.scratch, p.signal, p.roots, p.row_roots}, rows);
  conjugate(p.signal, p.side, rows, 1 / static_cast<double>(p.side * p.side));
}

Complex signal_at(uint64_t seed, uint64_t i) {
  const uint64_t random = Random(seed, i).next();
  constexpr double kScale = 1.0 / (1 << 24);
  return {static_cast<double>(random >> 40) * kScale, static_cast<double>(random & 0xffffff) * kScale};
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t wanted = arguments.number("n", 262'144), seed = arguments.number("seed", 1);
  uint64_t side = 8;
  while (4 * side * side <= wanted) side *= 2;
  const uint64_t n = side * side;
  const uint32_t workers = cpus();
  print("fft cpus=", workers, " n=", n, "\n");
  const Problem problem{side, allocate_array<Complex>(n), allocate_array<Complex>(n),
                        allocate_array<Complex>(n), allocate_array<Complex>(side)};
  for (uint64_t k = 0; k < side; ++k) problem.row_roots[k] = root_of_unity(k, side);
  auto* partial = allocate_array<OwnPage<uint64_t>>(workers);
  barrier->set_workers(workers);

  parallel(workers, [=](uint32_t worker) {
    const uint64_t row_size = side * sizeof(Complex);
    const Range rows = share_of(worker, workers, side, row_size < kPage ? kPage / row_size : 1);
    for (uint64_t i = rows.begin * side; i < rows.end * side; ++i) {
      problem.signal[i] = signal_at(seed, i);
      problem.roots[i] = root_of_unity(i, n);
    }
    barrier->wait();
    transform(problem, rows);
    Checksum mine;
    for (uint64_t i = rows.begin * side; i < rows.end * side; ++i) {
      mine.add(problem.scratch[i].real);
      mine.add(problem.scratch[i].imaginary);
    }
    *partial[worker] = mine.value();
    barrier->wait();
    transform_back(problem, rows);
  });

  double largest = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const Complex difference = problem.signal[i] - signal_at(seed, i);
    const double size = absolute(difference.real) + absolute(difference.imaginary);
    if (size > largest) largest = size;
  }
  Checksum checksum;
  for (uint64_t i = 0; i < n; ++i) checksum.add(problem.signal[i].real);
  for (uint32_t worker = 0; worker < workers; ++worker)
    print("worker ", worker, ": spectrum=", hex(*partial[worker]), "\n");
  const bool right = largest < 1e-10;
  print("difference=", right ? "small" : "LARGE", "\n");
  print("checksum=", hex(checksum.value()), right ? "\n" : "\nFAILED: there and back is not the same\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
