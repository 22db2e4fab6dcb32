// Blocked LU factorization without pivoting, after SPLASH-2's LU. Blocks are contiguous, whole pages,
// and each has one owner that alone writes it; others read it after a barrier.
//
// Parameters: n (rows and columns, 768; rounded up to a multiple of 32).
#include "runtime/barrier.h"
#include "runtime/checksum.h"
#include "runtime/heap.h"
#include "runtime/own_page.h"
#include "runtime/random.h"
#include "runtime/real.h"
#include "runtime/workload.h"

namespace reprise::guest {
namespace {

constexpr uint64_t kSide = 32;

// Two pages.
struct Block {
  double at[kSide][kSide];
};
static_assert(sizeof(Block) % kPage == 0);

struct Matrix {
  Block* block;
  uint64_t blocks;  // on one side

  Block& operator()(uint64_t row, uint64_t column) const { return block[row * blocks + column]; }
  double& element(uint64_t row, uint64_t column) const {
    return (*this)(row / kSide, column / kSide).at[row % kSide][column % kSide];
  }
};

OwnPage<Barrier> barrier;

// The matrix to factorize; the large diagonal makes pivoting unnecessary.
double original(uint64_t row, uint64_t column, uint64_t n) {
  const double fraction = static_cast<double>(Random(row, column).next() >> 40) / (1 << 24);
  return row == column ? fraction + static_cast<double>(n) : fraction;
}

// Block = L U in place; the diagonal of L is 1 and not stored.
void factorize(Block& a) {
  for (uint64_t k = 0; k < kSide; ++k) {
    for (uint64_t i = k + 1; i < kSide; ++i) {
      a.at[i][k] /= a.at[k][k];
      for (uint64_t j = k + 1; j < kSide; ++j) a.at[i][j] -= a.at[i][k] * a.at[k][j];
    }
  }
}

// Below the diagonal block: a = a U^-1.
void divide_by_upper(Block& a, const Block& diagonal) {
  for (uint64_t i = 0; i < kSide; ++i) {
    for (uint64_t k = 0; k < kSide; ++k) {
      a.at[i][k] /= diagonal.at[k][k];
      for (uint64_t j = k + 1; j < kSide; ++j) a.at[i][j] -= a.at[i][k] * diagonal.at[k][j];
    }
  }
}

// To the right of the diagonal block: a = L^-1 a.
void divide_by_lower(Block& a, const Block& diagonal) {
  for (uint64_t k = 0; k < kSide; ++k) {
    for (uint64_t i = k + 1; i < kSide; ++i) {
      for (uint64_t j = 0; j < kSide; ++j) a.at[i][j] -= diagonal.at[i][k] * a.at[k][j];
    }
  }
}

void subtract_product(Block& a, const Block& left, const Block& up) {
  for (uint64_t i = 0; i < kSide; ++i) {
    for (uint64_t k = 0; k < kSide; ++k) {
      const double factor = left.at[i][k];
      for (uint64_t j = 0; j < kSide; ++j) a.at[i][j] -= factor * up.at[k][j];
    }
  }
}

void factorize(const Matrix& a, uint32_t worker, uint32_t workers) {
  const auto mine = [=](uint64_t row, uint64_t column) { return (row + column * 3) % workers == worker; };
  for (uint64_t k = 0; k < a.blocks; ++k) {
    if (mine(k, k)) factorize(a(k, k));
    barrier->wait();
    for (uint64_t i = k + 1; i < a.blocks; ++i) {
      if (mine(i, k)) divide_by_upper(a(i, k), a(k, k));
      if (mine(k, i)) divide_by_lower(a(k, i), a(k, k));
    }
    barrier->wait();
    for (uint64_t i = k + 1; i < a.blocks; ++i) {
      for (uint64_t j = k + 1; j < a.blocks; ++j) {
        if (mine(i, j)) subtract_product(a(i, j), a(i, k), a(k, j));
      }
    }
    barrier->wait();
  }
}

// The largest component of (L U - A) x, relative to n, for x = (1, 1/2, 1/3, ...).
double residual(const Matrix& a, uint64_t n) {
  double* upper = allocate_array<double>(n);  // U x
  for (uint64_t i = 0; i < n; ++i) {
    upper[i] = 0;
    for (uint64_t j = i; j < n; ++j) upper[i] += a.element(i, j) / static_cast<double>(j + 1);
  }
  double largest = 0;
  for (uint64_t i = 0; i < n; ++i) {
    double difference = upper[i];
    for (uint64_t j = 0; j < i; ++j) difference += a.element(i, j) * upper[j];
    for (uint64_t j = 0; j < n; ++j) difference -= original(i, j, n) / static_cast<double>(j + 1);
    if (absolute(difference) > largest) largest = absolute(difference);
  }
  return largest / static_cast<double>(n);
}

}  // namespace

uint32_t workload(const Arguments& arguments) {
  const uint64_t blocks = (arguments.number("n", 768) + kSide - 1) / kSide, n = blocks * kSide;
  const uint32_t workers = cpus();
  print("lu cpus=", workers, " n=", n, "\n");
  const Matrix matrix{allocate_array<Block>(blocks * blocks), blocks};
  for (uint64_t i = 0; i < n; ++i) {
    for (uint64_t j = 0; j < n; ++j) matrix.element(i, j) = original(i, j, n);
  }
  barrier->set_workers(workers);

  parallel(workers, [=](uint32_t worker) { factorize(matrix, worker, workers); });

  Checksum checksum;
  for (uint64_t i = 0; i < n; ++i) {
    for (uint64_t j = 0; j < n; ++j) checksum.add(matrix.element(i, j));
  }
  const bool right = residual(matrix, n) < 1e-12;
  print("residual=", right ? "small" : "LARGE", "\n");
  print("checksum=", hex(checksum.value()), right ? "\n" : "\nFAILED: L U is not A\n");
  return right ? kExitSuccess : kExitWrongResult;
}

}  // namespace reprise::guest
