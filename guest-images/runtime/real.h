// The little mathematics that fft needs. No library: results are the same on every machine.
#pragma once

#include <stdint.h>

namespace reprise::guest {

struct Complex {
  double real, imaginary;
};
inline Complex operator+(Complex a, Complex b) {
  return {a.real + b.real, a.imaginary + b.imaginary};
}
inline Complex operator-(Complex a, Complex b) {
  return {a.real - b.real, a.imaginary - b.imaginary};
}
inline Complex operator*(Complex a, Complex b) {
  return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
}

inline double absolute(double x) {
  return x < 0 ? -x : x;
}

// sin and cos of x in [0, pi/4] by their Taylor series: the first term left out is below 1e-19.
inline Complex cosine_and_sine(double x) {
  double cosine = 0, sine = 0, term = 1;
  for (int i = 0; i < 18; ++i) {
    switch (i % 4) {
      case 0:
        cosine += term;
        break;
      case 1:
        sine += term;
        break;
      case 2:
        cosine -= term;
        break;
      default:
        sine -= term;
        break;
    }
    term *= x / (i + 1);
  }
  return {cosine, sine};
}

// exp(-2 pi i k / n): folded into the first eighth of the circle with integers, so that roots that
// mirror each other are exactly equal. Requires: k < n, n divisible by 8.
inline Complex root_of_unity(uint64_t k, uint64_t n) {
  constexpr double kTwoPi = 6.283185307179586476925;
  if (k > n / 2) {
    const Complex mirrored = root_of_unity(n - k, n);
    return {mirrored.real, -mirrored.imaginary};
  }
  if (k > n / 4) {
    const Complex mirrored = root_of_unity(n / 2 - k, n);
    return {-mirrored.real, mirrored.imaginary};
  }
  const bool swapped = k > n / 8;
  const Complex point =
      cosine_and_sine(kTwoPi * static_cast<double>(swapped ? n / 4 - k : k) / static_cast<double>(n));
  return swapped ? Complex{point.imaginary, -point.real} : Complex{point.real, -point.imaginary};
}

}  // namespace reprise::guest
