// tanh and sigmoid of vectors.h against long double: how many units in the last place they are off, over the whole range
// of the type, and what becomes of zeros, infinities, NaN and denormals. Says what is wrong, with exit code 1.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "vectors.h"

using namespace deeprnn;
using namespace deeprnn::DEEPRNN_ISA;

namespace {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
T of_bits(Bits<T> bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T>
Bits<T> bits_of(T x) {
  Bits<T> bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}

// The distance of neighbours at x.
template <class T>
long double unit(long double x) {
  const int digits = std::numeric_limits<T>::digits, least = std::numeric_limits<T>::min_exponent;
  int exponent = least;
  if (x != 0) std::frexp(x, &exponent);
  return std::ldexp(1.0L, (exponent < least ? least : exponent) - digits);
}

template <class T, class Function, class Exact>
struct Trial {
  Function function;
  Exact exact;
  bool normal_only;  // results below the smallest normal number may be anything from 0 to that number
  double worst = 0;
  T worst_at = 0;
  long tried = 0;
  T waiting[kWidth<T>] = {};
  int count = 0;

  void flush() {
    T results[kWidth<T>];
    store(results, function(load(waiting)));
    for (int i = 0; i < count; ++i, ++tried) {
      const long double value = exact(static_cast<long double>(waiting[i]));
      long double off = std::fabs(results[i] - value) / unit<T>(value);
      const long double least = std::numeric_limits<T>::min();
      if (normal_only && value < least && results[i] >= 0 && results[i] <= least) off = 0;
      if (!(off <= worst)) worst = static_cast<double>(off), worst_at = waiting[i];  // so that a NaN counts
      if (std::isnan(worst)) worst = INFINITY;
    }
    count = 0;
  }

  void add(T x) {
    waiting[count++] = x;
    if (count == kWidth<T>) flush();
  }

  // Both signs of all sizes from denormals to the largest, and more of those of which the result is not constant.
  bool run(const char* name, double bound) {
    const Bits<T> last = bits_of(std::numeric_limits<T>::max());
    const Bits<T> stride = static_cast<Bits<T>>(last / 400000) | 1;
    for (Bits<T> bits = 0; bits < last; bits += stride) {
      add(of_bits<T>(bits)), add(-of_bits<T>(bits));
      if (last - bits < stride) break;
    }
    const Bits<T> low = bits_of(T(0.01)), high = bits_of(T(sizeof(T) == 4 ? 120 : 800));
    const Bits<T> step = static_cast<Bits<T>>((high - low) / 1000000) | 1;
    for (Bits<T> bits = low; bits < high; bits += step) add(of_bits<T>(bits)), add(-of_bits<T>(bits));
    for (Bits<T> bits = 0; bits < 1000; ++bits) add(of_bits<T>(bits)), add(of_bits<T>(last - bits));
    while (count) add(0);
    std::printf("%s of %s: %ld numbers, off by %.2f units in the last place at most, at %.17g\n", name,
                sizeof(T) == 4 ? "float" : "double", tried, worst, static_cast<double>(worst_at));
    return worst <= bound;
  }
};

template <class T, class Function, class Exact>
bool within(const char* name, double bound, bool normal_only, Function function, Exact exact) {
  Trial<T, Function, Exact> trial{function, exact, normal_only};
  const bool fine = trial.run(name, bound);
  if (!fine) std::printf("  which is more than %g\n", bound);
  return fine;
}

template <class T, class Function>
bool maps(const char* name, Function function, T x, T to) {
  const T y = function(same(x))[kWidth<T> - 1];
  const bool fine = std::isnan(to) ? std::isnan(y) : bits_of(y) == bits_of(to);
  if (!fine) std::printf("%s of %g is %g and not %g\n", name, double(x), double(y), double(to));
  return fine;
}

template <class T>
bool check() {
  const auto tanh_ = [](Vector<T> x) { return tanh<T>(x); };
  const auto sigmoid_ = [](Vector<T> x) { return sigmoid<T>(x); };
  const auto relu_ = [](Vector<T> x) { return relu<T>(x); };
  bool fine = within<T>("tanh", sizeof(T) == 4 ? 2 : 3, false, tanh_, [](long double x) { return std::tanh(x); });
  fine = within<T>("sigmoid", 3, true, sigmoid_, [](long double x) { return 1 / (1 + std::exp(-x)); }) && fine;
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  const T least = std::numeric_limits<T>::denorm_min(), largest = std::numeric_limits<T>::max();
  for (const T sign : {T(1), T(-1)}) {
    fine = maps<T>("tanh", tanh_, sign * infinity, sign) && maps<T>("tanh", tanh_, sign * largest, sign) && fine;
    fine = maps<T>("tanh", tanh_, sign * T(0), sign * T(0)) && fine;
    for (const T denormal : {least, 3 * least, std::numeric_limits<T>::min() / 3})
      fine = maps<T>("tanh", tanh_, sign * denormal, sign * denormal) && fine;
    for (const T small : {T(0), least}) fine = maps<T>("sigmoid", sigmoid_, sign * small, T(0.5)) && fine;
  }
  fine = maps<T>("tanh", tanh_, nan, nan) && maps<T>("sigmoid", sigmoid_, nan, nan) && fine;
  fine = maps<T>("sigmoid", sigmoid_, infinity, 1) && maps<T>("sigmoid", sigmoid_, -infinity, 0) && fine;
  fine = maps<T>("relu", relu_, nan, nan) && maps<T>("relu", relu_, infinity, infinity) && fine;
  fine = maps<T>("relu", relu_, -infinity, 0) && maps<T>("relu", relu_, least, least) && fine;
  // Near where exp becomes infinite, and where its result becomes denormal.
  const T edge = sizeof(T) == 4 ? T(88) : T(709);
  for (T x = edge - 2; x < edge + 3; x += T(0.01)) {
    const T small = sigmoid<T>(same(-x))[0], large = sigmoid<T>(same(x))[0];
    if (small >= 0 && small < 1e-36 && large == 1) continue;
    std::printf("sigmoid of %g is %g, of %g %g\n", double(-x), double(small), double(x), double(large));
    return false;
  }
  return fine;
}

}  // namespace

int main() {
  const bool single = check<float>(), twice = check<double>();
  return single && twice ? 0 : 1;
}
