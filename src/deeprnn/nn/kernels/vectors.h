// Vectors of one instruction set, and the three non-linearities on them.
//
// Each instruction set compiles this file once more, with its width (DEEPRNN_VECTOR_BYTES) and in a namespace of its
// own (DEEPRNN_ISA): a wide vector compiled for a narrow machine is ten times slower than no vector at all.
#pragma once

#if defined(__AVX__)
#include <immintrin.h>
#endif

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

// Two vectors that go through a formula side by side: while one waits for the result of an operation, the other's is
// under way. Without it the gates take a third longer.
template <class T>
struct Pair {
  Vector<T> v[2];
};

#define DEEPRNN_PAIR_OPERATOR(op)                            \
  template <class T>                                         \
  DEEPRNN_INLINE Pair<T> operator op(Pair<T> a, Pair<T> b) { \
    return {{a.v[0] op b.v[0], a.v[1] op b.v[1]}};           \
  }                                                          \
  template <class T>                                         \
  DEEPRNN_INLINE Pair<T> operator op(Pair<T> a, T b) {       \
    return {{a.v[0] op b, a.v[1] op b}};                     \
  }                                                          \
  template <class T>                                         \
  DEEPRNN_INLINE Pair<T> operator op(T a, Pair<T> b) {       \
    return {{a op b.v[0], a op b.v[1]}};                     \
  }
DEEPRNN_PAIR_OPERATOR(+)
DEEPRNN_PAIR_OPERATOR(-)
DEEPRNN_PAIR_OPERATOR(*)
DEEPRNN_PAIR_OPERATOR(/)
#undef DEEPRNN_PAIR_OPERATOR

// What a row is read and written by: two vectors, one, or the first few numbers of one at the end of the row.
template <class T>
struct Two {
  DEEPRNN_INLINE Pair<T> load(const T* from) const {
    return {{DEEPRNN_ISA::load(from), DEEPRNN_ISA::load(from + kWidth<T>)}};
  }
  static DEEPRNN_INLINE Pair<T> zero() { return {}; }
  DEEPRNN_INLINE void store(T* to, Pair<T> x) const {
    DEEPRNN_ISA::store(to, x.v[0]);
    DEEPRNN_ISA::store(to + kWidth<T>, x.v[1]);
  }
};

template <class T>
struct Whole {
  DEEPRNN_INLINE Vector<T> load(const T* from) const { return DEEPRNN_ISA::load(from); }
  static DEEPRNN_INLINE Vector<T> zero() { return Vector<T>{}; }
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
  static DEEPRNN_INLINE Vector<T> zero() { return Vector<T>{}; }
  DEEPRNN_INLINE void store(T* to, Vector<T> v) const {
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }
};

// Call body(lanes, first) for a row of `size` numbers, vector by vector.
template <class T, class Body>
DEEPRNN_INLINE void each_vector(long size, Body body) {
  long j = 0;
  for (; j + kWidth<T> <= size; j += kWidth<T>) body(Whole<T>{}, j);
  if (j < size) body(Part<T>{static_cast<int>(size - j)}, j);
}

// The same two vectors at a time, for formulas of many operations.
template <class T, class Body>
DEEPRNN_INLINE void each_pair(long size, Body body) {
  long j = 0;
  for (; j + 2 * kWidth<T> <= size; j += 2 * kWidth<T>) body(Two<T>{}, j);
  if (j + kWidth<T> <= size) body(Whole<T>{}, j), j += kWidth<T>;
  if (j < size) body(Part<T>{static_cast<int>(size - j)}, j);
}

// --- what vectors have no operator for, on one and on two

// The smaller and the larger of two; the second where one is a NaN. Compilers make two instructions of the comparison,
// as they may not know that one does just this; with AVX-512 the second is nearly free.
#if DEEPRNN_VECTOR_BYTES == 32 && defined(__AVX__)
DEEPRNN_INLINE Vector<float> least(Vector<float> a, Vector<float> b) { return _mm256_min_ps(a, b); }
DEEPRNN_INLINE Vector<double> least(Vector<double> a, Vector<double> b) { return _mm256_min_pd(a, b); }
DEEPRNN_INLINE Vector<float> largest(Vector<float> a, Vector<float> b) { return _mm256_max_ps(a, b); }
DEEPRNN_INLINE Vector<double> largest(Vector<double> a, Vector<double> b) { return _mm256_max_pd(a, b); }
#else
template <class V>
DEEPRNN_INLINE V least(V a, V b) {
  return a < b ? a : b;
}
template <class V>
DEEPRNN_INLINE V largest(V a, V b) {
  return a > b ? a : b;
}
#endif

template <class T>
DEEPRNN_INLINE Vector<T> bounded_below(T limit, Vector<T> x) {
  return largest(same(limit), x);
}

template <class T>
DEEPRNN_INLINE Vector<T> bounded_above(T limit, Vector<T> x) {
  return least(same(limit), x);
}

// `yes` where x is below the limit, else `no`, also where x is a NaN.
template <class T>
DEEPRNN_INLINE Vector<T> where_below(Vector<T> x, T limit, Vector<T> yes, Vector<T> no) {
  return x < limit ? yes : no;
}

// One where x is between the limits or is a NaN, else zero.
template <class T>
DEEPRNN_INLINE Vector<T> within(Vector<T> x, T low, T high) {
  return ((x < low) | (x > high)) ? Vector<T>{} : same(T(1));
}

// x where `of` is a number, else zero.
template <class T>
DEEPRNN_INLINE Vector<T> where_number(Vector<T> of, Vector<T> x) {
  return of == of ? x : Vector<T>{};
}

template <class T>
DEEPRNN_INLINE Vector<T> where_positive(Vector<T> of, Vector<T> x) {
  return of > T(0) ? x : Vector<T>{};
}

template <class T>
DEEPRNN_INLINE Vector<T> instead_of_nan(T value, Vector<T> x) {
  return x == x ? x : same(value);
}

template <class T>
DEEPRNN_INLINE Vector<T> magnitude(Vector<T> x) {
  using Integers = typename Types<T>::Integers;
  return (Vector<T>)((Integers)x & ~(Integers)same(T(-0.0)));
}

// `a`, which is not negative, with the sign of x.
template <class T>
DEEPRNN_INLINE Vector<T> with_sign_of(Vector<T> x, Vector<T> a) {
  using Integers = typename Types<T>::Integers;
  return (Vector<T>)((Integers)a | ((Integers)x & (Integers)same(T(-0.0))));
}

template <class T>
DEEPRNN_INLINE Vector<T> negative(Vector<T> x) {
  return -x;
}

// `rows` rows of `count` numbers each become as many columns.
template <class T>
DEEPRNN_INLINE void transpose(int rows, int count, const T* from, long stride, T* to, long to_stride) {
  for (int i = 0; i < rows; ++i)
    for (int q = 0; q < count; ++q) to[q * to_stride + i] = from[i * stride + q];
}

constexpr int kSquare = 4;

// The same for a square of kSquare numbers, which as single numbers takes two and a half times as long.
template <class T>
DEEPRNN_INLINE void transpose_square(const T* from, long stride, T* to, long to_stride) {
  transpose(kSquare, kSquare, from, stride, to, to_stride);
}
#if defined(__AVX__)
template <>
DEEPRNN_INLINE void transpose_square(const float* from, long stride, float* to, long to_stride) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + stride);
  __m128 c = _mm_loadu_ps(from + 2 * stride), d = _mm_loadu_ps(from + 3 * stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a), _mm_storeu_ps(to + to_stride, b);
  _mm_storeu_ps(to + 2 * to_stride, c), _mm_storeu_ps(to + 3 * to_stride, d);
}
#endif

// --- exp(x) = 2^n * (1 + p), with x = n * log(2) + r, |r| <= log(2) / 2, and p = exp(r) - 1 = r + r^2 * Q(r)
//
// The polynomials of float32 are fits of least largest relative error (float64: Taylor's series, cut where the rest is
// below rounding). A NaN goes through.

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
  static constexpr float kTanh[] = {-6.0969372e-3f, 2.0997355e-2f, -5.3850953e-2f, 1.3332771e-1f, -3.3333328e-1f};
};

template <>
struct Constants<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLog2High = 6.93145751953125e-1, kLog2Low = 1.42860682030941723212e-6;
  static constexpr int kMantissaBits = 52, kExponentBias = 1023;
  static constexpr double kLargest = 710.0, kSmallest = -708.0;
  static constexpr double kTanhIsOne = 20.0;
  static constexpr double kExp[] = {
      1.0 / 87178291200.0, 1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
      1.0 / 362880.0,      1.0 / 40320.0,      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,
      1.0 / 24.0,          1.0 / 6.0,          1.0 / 2.0};
};

// 2^n, from the sum of n and kRound, in whose low bits n is.
template <class T>
DEEPRNN_INLINE Vector<T> power_of_two(Vector<T> shifted) {
  using C = Constants<T>;
  using Integers = typename Types<T>::Integers;
  return (Vector<T>)(((Integers)shifted + C::kExponentBias) << C::kMantissaBits);
}

#define DEEPRNN_ON_PAIR(name)                    \
  template <class T>                             \
  DEEPRNN_INLINE Pair<T> name(Pair<T> x) {       \
    return {{name<T>(x.v[0]), name<T>(x.v[1])}}; \
  }
#define DEEPRNN_LIMIT_ON_PAIR(name)                            \
  template <class T>                                           \
  DEEPRNN_INLINE Pair<T> name(T limit, Pair<T> x) {            \
    return {{name<T>(limit, x.v[0]), name<T>(limit, x.v[1])}}; \
  }
DEEPRNN_ON_PAIR(magnitude)
DEEPRNN_ON_PAIR(negative)
DEEPRNN_ON_PAIR(power_of_two)
DEEPRNN_LIMIT_ON_PAIR(bounded_below)
DEEPRNN_LIMIT_ON_PAIR(bounded_above)
DEEPRNN_LIMIT_ON_PAIR(instead_of_nan)
#undef DEEPRNN_ON_PAIR
#undef DEEPRNN_LIMIT_ON_PAIR

template <class T>
DEEPRNN_INLINE Pair<T> where_below(Pair<T> x, T limit, Pair<T> yes, Pair<T> no) {
  return {{where_below<T>(x.v[0], limit, yes.v[0], no.v[0]), where_below<T>(x.v[1], limit, yes.v[1], no.v[1])}};
}

template <class T>
DEEPRNN_INLINE Pair<T> within(Pair<T> x, T low, T high) {
  return {{within<T>(x.v[0], low, high), within<T>(x.v[1], low, high)}};
}

template <class T>
DEEPRNN_INLINE Pair<T> where_number(Pair<T> of, Pair<T> x) {
  return {{where_number<T>(of.v[0], x.v[0]), where_number<T>(of.v[1], x.v[1])}};
}

template <class T>
DEEPRNN_INLINE Pair<T> where_positive(Pair<T> of, Pair<T> x) {
  return {{where_positive<T>(of.v[0], x.v[0]), where_positive<T>(of.v[1], x.v[1])}};
}

template <class T>
DEEPRNN_INLINE Pair<T> with_sign_of(Pair<T> x, Pair<T> a) {
  return {{with_sign_of<T>(x.v[0], a.v[0]), with_sign_of<T>(x.v[1], a.v[1])}};
}

// --- the non-linearities, of a vector or a pair V

template <class T, class V, int N>
DEEPRNN_INLINE V polynomial(const T (&coefficients)[N], V x) {
  V sum = coefficients[0] * x + coefficients[1];
#pragma GCC unroll 16
  for (int i = 2; i < N; ++i) sum = sum * x + coefficients[i];
  return sum;
}

template <class T, class V>
DEEPRNN_INLINE void reduced(V x, V* p, V* power) {
  using C = Constants<T>;
  const V shifted = x * static_cast<T>(1.44269504088896341) + C::kRound;
  const V n = shifted - C::kRound;
  const V r = (x - n * C::kLog2High) - n * C::kLog2Low;
  *p = polynomial(C::kExp, r) * (r * r) + r;
  *power = power_of_two<T>(shifted);
}

// 1 / (1 + exp(-x)), within 3 units in the last place; below -88.4 (float64: -709) it is 0.
template <class T, class V>
DEEPRNN_INLINE V sigmoid(V x) {
  using C = Constants<T>;
  V p, power;
  reduced<T>(bounded_below<T>(C::kSmallest, bounded_above<T>(C::kLargest, negative<T>(x))), &p, &power);
  // Not p * power + power: where 2^n is infinite and p below 0, that would be a NaN.
  return T(1) / (T(1) + (p + T(1)) * power);
}

// By its absolute value, so that it is exactly odd; within 2 units in the last place (float64: 3).
template <class T, class V>
DEEPRNN_INLINE V tanh(V x) {
  using C = Constants<T>;
  const V a = bounded_above<T>(C::kTanhIsOne, magnitude<T>(x));
  V p, power;
  reduced<T>(a + a, &p, &power);
  if constexpr (sizeof(T) == sizeof(float)) {
    const V squared = a * a;
    const V small = polynomial(C::kTanh, squared) * (squared * a) + a;
    const V large = T(1) - T(2) / (p * power + (power + T(1)));
    return with_sign_of<T>(x, where_below<T>(a, T(0.625), small, large));
  } else {
    const V less_one = p * power + (power - T(1));  // exp(2a) - 1, to the last digit where a is small
    return with_sign_of<T>(x, less_one / (less_one + T(2)));
  }
}

template <class T, class V>
DEEPRNN_INLINE V relu(V x) {
  return bounded_below<T>(T(0), x);
}

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
