// Vectors of one instruction set, and the three non-linearities on them.
//
// Each instruction set compiles this file once more, with its width (DEEPRNN_VECTOR_BYTES) and in a namespace of its
// own (DEEPRNN_ISA): a wide vector compiled for a narrow machine is ten times slower than no vector at all.
#pragma once

#include <cstdint>
#include <cstring>

#include "call.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

template <class T>
struct Types;

template <>
struct Types<float> {
  typedef float Vector __attribute__((vector_size(DEEPRNN_VECTOR_BYTES)));
  typedef std::int32_t Integers __attribute__((vector_size(DEEPRNN_VECTOR_BYTES)));
};

template <>
struct Types<double> {
  typedef double Vector __attribute__((vector_size(DEEPRNN_VECTOR_BYTES)));
  typedef std::int64_t Integers __attribute__((vector_size(DEEPRNN_VECTOR_BYTES)));
};

template <class T>
using Vector = typename Types<T>::Vector;

template <class T>
constexpr int kWidth = DEEPRNN_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
DEEPRNN_INLINE Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
DEEPRNN_INLINE void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
DEEPRNN_INLINE Vector<T> same(T x) {
  return x - Vector<T>{};  // not x + 0, which would lose the sign of -0
}

// A whole vector, or the first few numbers of one at the end of a row.
template <class T>
struct Whole {
  DEEPRNN_INLINE Vector<T> load(const T* from) const { return DEEPRNN_ISA::load(from); }
  DEEPRNN_INLINE void store(T* to, Vector<T> v) const { DEEPRNN_ISA::store(to, v); }
};

template <class T>
struct Part {
  int count;
  DEEPRNN_INLINE Vector<T> load(const T* from) const {
    Vector<T> v{};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
  }
  DEEPRNN_INLINE void store(T* to, Vector<T> v) const {
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }
};

// Call body(lanes, first) for each vector of a row of `size` numbers.
template <class T, class Body>
DEEPRNN_INLINE void each_vector(long size, Body body) {
  long j = 0;
  for (; j + kWidth<T> <= size; j += kWidth<T>) body(Whole<T>{}, j);
  if (j < size) body(Part<T>{static_cast<int>(size - j)}, j);
}

// --- exp(x) = 2^n * (1 + p), with x = n * log(2) + r, |r| <= log(2) / 2, and p = exp(r) - 1 = r + r^2 * Q(r)
//
// The polynomials of float32 are fits of least largest relative error (float64: Taylor's series, cut where the rest is
// below rounding). Comparisons are written so that a NaN goes through.

template <class T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  static constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  static constexpr int kMantissaBits = 23, kExponentBias = 127;
  static constexpr float kLargest = 89.0f, kSmallest = -87.3f;  // of exp: beyond, it is infinite or denormal
  static constexpr float kTanhIsOne = 9.02f;
  static constexpr float kExp[] = {1.3901293e-3f, 8.3631706e-3f, 4.1666854e-2f, 1.6666578e-1f, 0.5f};
};

template <>
struct Constants<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLog2High = 6.93145751953125e-1, kLog2Low = 1.42860682030941723212e-6;
  static constexpr int kMantissaBits = 52, kExponentBias = 1023;
  static constexpr double kLargest = 710.0, kSmallest = -708.0;
  static constexpr double kTanhIsOne = 20.0;
  static constexpr double kExp[] = {1.0 / 87178291200.0, 1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0,
                                    1.0 / 3628800.0,     1.0 / 362880.0,     1.0 / 40320.0,     1.0 / 5040.0,
                                    1.0 / 720.0,         1.0 / 120.0,        1.0 / 24.0,        1.0 / 6.0,
                                    1.0 / 2.0};
};

template <class T, int N>
DEEPRNN_INLINE Vector<T> polynomial(const T (&coefficients)[N], Vector<T> x) {
  Vector<T> sum = same(coefficients[0]);
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) sum = sum * x + coefficients[i];
  return sum;
}

template <class T>
DEEPRNN_INLINE void reduced(Vector<T> x, Vector<T>* p, Vector<T>* power) {
  using C = Constants<T>;
  using Integers = typename Types<T>::Integers;
  const Vector<T> shifted = x * static_cast<T>(1.44269504088896341) + C::kRound;
  const Vector<T> n = shifted - C::kRound;
  const Vector<T> r = (x - n * C::kLog2High) - n * C::kLog2Low;
  *p = polynomial(C::kExp, r) * (r * r) + r;
  *power = (Vector<T>)(((Integers)shifted + C::kExponentBias) << C::kMantissaBits);  // n stands in the low bits
}

template <class T>
DEEPRNN_INLINE Vector<T> exponential(Vector<T> x) {
  using C = Constants<T>;
  x = x > C::kLargest ? same(C::kLargest) : x;
  x = x < C::kSmallest ? same(C::kSmallest) : x;
  Vector<T> p, power;
  reduced<T>(x, &p, &power);
  return p * power + power;
}

// 1 / (1 + exp(-x)), within 3 units in the last place; below -88 (float64: -709) it is 0.
template <class T>
DEEPRNN_INLINE Vector<T> sigmoid(Vector<T> x) {
  return T(1) / (T(1) + exponential<T>(-x));
}

// By its absolute value, so that it is exactly odd; within 2 units in the last place (float64: 3).
DEEPRNN_INLINE Vector<float> tanh_of_positive(Vector<float> a) {
  constexpr float kOdd[] = {-6.0969372e-3f, 2.0997355e-2f, -5.3850953e-2f, 1.3332771e-1f, -3.3333328e-1f};
  const Vector<float> squared = a * a;
  const Vector<float> small = polynomial(kOdd, squared) * (squared * a) + a;
  Vector<float> p, power;
  reduced<float>(a + a, &p, &power);
  const Vector<float> large = 1.0f - 2.0f / (p * power + (power + 1.0f));
  return a < 0.625f ? small : large;
}

DEEPRNN_INLINE Vector<double> tanh_of_positive(Vector<double> a) {
  Vector<double> p, power;
  reduced<double>(a + a, &p, &power);
  const Vector<double> less_one = p * power + (power - 1.0);  // exp(2a) - 1, to the last digit where a is small
  return less_one / (less_one + 2.0);
}

template <class T>
DEEPRNN_INLINE Vector<T> tanh(Vector<T> x) {
  using Integers = typename Types<T>::Integers;
  const Integers sign = (Integers)x & (Integers)same(T(-0.0));
  Vector<T> a = (Vector<T>)((Integers)x ^ sign);
  a = a > Constants<T>::kTanhIsOne ? same(Constants<T>::kTanhIsOne) : a;
  return (Vector<T>)((Integers)tanh_of_positive(a) | sign);
}

template <class T>
DEEPRNN_INLINE Vector<T> relu(Vector<T> x) {
  return x < T(0) ? Vector<T>{} : x;
}

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
