// What a step does besides its products, forward and backward, for each cell: the formulas of cells.py.
//
// A cell sees `rows` sequences of one step. Forward, the preactivations hold the input part and, for a cell without
// kSeparate, the recurrent part as well. Backward, `hidden` holds the gradient of the state after the step, and is left
// with what of it goes to the state before the step directly; what goes through the product is added later.
#pragma once

#include "call.h"
#include "vectors.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

// A row for each sequence.
template <class T>
struct Matrix {
  T* first;
  long stride;
  DEEPRNN_INLINE T* row(long n) const { return first + n * stride; }
  operator Matrix<const T>() const { return {first, stride}; }
};

template <class T>
struct StepForward {
  long rows, hidden;
  Matrix<T> preactivations;  // (rows, G), changed
  Matrix<const T> recurrent;  // (rows, G) for a cell with kSeparate
  Matrix<const T> before;  // hidden state before the step
  Matrix<T> after;  // and after it; with a projection: before the projection
  Matrix<T> cell;  // LSTM's second state, changed
  Matrix<T> saved;  // what the gradient needs; first is null where none is asked for
  const Options* options;
};

template <class T>
struct StepBackward {
  long rows, hidden;
  Matrix<const T> before, after;
  Matrix<const T> cell_before;
  Matrix<const T> saved;
  Matrix<T> of_hidden;  // changed
  Matrix<T> of_cell;  // changed
  Matrix<T> of_input_part;  // (rows, G), result
  Matrix<T> of_recurrent_part;  // the same for a cell with kSeparate
  const Options* options;

  // The step of one sequence of them.
  StepBackward sequence(long n) const {
    StepBackward one = *this;
    one.rows = 1;
    one.before.first = before.row(n), one.after.first = after.row(n), one.cell_before.first = cell_before.row(n);
    one.saved.first = saved.row(n), one.of_hidden.first = of_hidden.row(n), one.of_cell.first = of_cell.row(n);
    one.of_input_part.first = of_input_part.row(n), one.of_recurrent_part.first = of_recurrent_part.row(n);
    return one;
  }
};

template <class T, Cell kKind>
struct Elman {
  static constexpr int kGates = 1;
  static constexpr bool kSeparate = false, kHasCell = false;

  // H' = phi(X W_xh + H W_hh + b)
  static void forward(const StepForward<T>& s) {
    for (long n = 0; n < s.rows; ++n) {
      const T* in = s.preactivations.row(n);
      T* out = s.after.row(n);
      each_pair<T>(s.hidden, [&](auto lanes, long j) __attribute__((always_inline)) {
        const auto a = lanes.load(in + j);
        lanes.store(out + j, kKind == Cell::kTanh ? tanh<T>(a) : relu<T>(a));
      });
    }
  }

  static void backward(const StepBackward<T>& s) {
    for (long n = 0; n < s.rows; ++n) {
      const T* value = s.after.row(n);
      T *of_hidden = s.of_hidden.row(n), *of_input = s.of_input_part.row(n);
      each_pair<T>(s.hidden, [&](auto lanes, long j) __attribute__((always_inline)) {
        const auto h = lanes.load(value + j), g = lanes.load(of_hidden + j);
        lanes.store(of_input + j, kKind == Cell::kTanh ? g * (T(1) - h * h) : where_positive<T>(h, g));
        lanes.store(of_hidden + j, lanes.zero());
      });
    }
  }
};

template <class T>
struct Gru {
  static constexpr int kGates = 3;
  static constexpr bool kSeparate = true, kHasCell = false;

  // R = sigmoid(..), Z = sigmoid(..), N = tanh(X W_xh + b_xh + R * (H W_hh + b_hh)), H' = N + Z * (H - N)
  static void forward(const StepForward<T>& s) {
    const long H = s.hidden;
    for (long n = 0; n < s.rows; ++n) {
      const T *x = s.preactivations.row(n), *h = s.recurrent.row(n), *before = s.before.row(n);
      T *out = s.after.row(n), *keep = s.saved.first ? s.saved.row(n) : nullptr;
      each_pair<T>(H, [&](auto lanes, long j) __attribute__((always_inline)) {
        const auto reset = sigmoid<T>(lanes.load(x + j) + lanes.load(h + j));
        const auto update = sigmoid<T>(lanes.load(x + H + j) + lanes.load(h + H + j));
        const auto state = lanes.load(h + 2 * H + j);
        const auto candidate = tanh<T>(lanes.load(x + 2 * H + j) + reset * state);
        lanes.store(out + j, candidate + update * (lanes.load(before + j) - candidate));
        if (keep) {
          lanes.store(keep + j, reset);
          lanes.store(keep + H + j, update);
          lanes.store(keep + 2 * H + j, candidate);
          lanes.store(keep + 3 * H + j, state);
        }
      });
    }
  }

  static void backward(const StepBackward<T>& s) {
    const long H = s.hidden;
    for (long n = 0; n < s.rows; ++n) {
      const T *kept = s.saved.row(n), *before = s.before.row(n);
      T *of_hidden = s.of_hidden.row(n), *of_x = s.of_input_part.row(n), *of_h = s.of_recurrent_part.row(n);
      each_pair<T>(H, [&](auto lanes, long j) __attribute__((always_inline)) {
        const auto reset = lanes.load(kept + j), update = lanes.load(kept + H + j);
        const auto candidate = lanes.load(kept + 2 * H + j), state = lanes.load(kept + 3 * H + j);
        const auto g = lanes.load(of_hidden + j);
        const auto of_candidate = g * (T(1) - update) * (T(1) - candidate * candidate);
        const auto of_update = g * (lanes.load(before + j) - candidate) * update * (T(1) - update);
        const auto of_reset = of_candidate * state * reset * (T(1) - reset);
        lanes.store(of_x + j, of_reset);
        lanes.store(of_x + H + j, of_update);
        lanes.store(of_x + 2 * H + j, of_candidate);
        lanes.store(of_h + j, of_reset);
        lanes.store(of_h + H + j, of_update);
        lanes.store(of_h + 2 * H + j, of_candidate * reset);
        lanes.store(of_hidden + j, g * update);
      });
    }
  }
};

template <class T>
struct Lstm {
  static constexpr int kGates = 4;
  static constexpr bool kSeparate = false, kHasCell = true;

  // I, F, O = sigmoid(..), G = tanh(..), C' = clip(F * C + I * G), H' = O * tanh(C')
  static void forward(const StepForward<T>& s) {
    const long H = s.hidden;
    for (long n = 0; n < s.rows; ++n) {
      T *a = s.preactivations.row(n), *cell = s.cell.row(n), *out = s.after.row(n);
      T* keep = s.saved.first ? s.saved.row(n) : nullptr;
      each_pair<T>(H, [&](auto lanes, long j) __attribute__((always_inline)) {
        const auto input = sigmoid<T>(lanes.load(a + j)), forget = sigmoid<T>(lanes.load(a + H + j));
        const auto candidate = tanh<T>(lanes.load(a + 2 * H + j));
        const auto output = sigmoid<T>(lanes.load(a + 3 * H + j));
        const auto c = clip(forget * lanes.load(cell + j) + input * candidate, *s.options);
        lanes.store(cell + j, c);
        lanes.store(out + j, output * tanh<T>(c));
        if (keep) {
          lanes.store(keep + j, input);
          lanes.store(keep + H + j, forget);
          lanes.store(keep + 2 * H + j, candidate);
          lanes.store(keep + 3 * H + j, output);
          lanes.store(keep + 4 * H + j, c);
        }
      });
    }
  }

  static void backward(const StepBackward<T>& s) {
    const long H = s.hidden;
    for (long n = 0; n < s.rows; ++n) {
      const T *kept = s.saved.row(n), *before = s.cell_before.row(n);
      T *of_hidden = s.of_hidden.row(n), *of_cell = s.of_cell.row(n), *of_gates = s.of_input_part.row(n);
      each_pair<T>(H, [&](auto lanes, long j) __attribute__((always_inline)) {
        const auto input = lanes.load(kept + j), forget = lanes.load(kept + H + j);
        const auto candidate = lanes.load(kept + 2 * H + j), output = lanes.load(kept + 3 * H + j);
        const auto seen = tanh<T>(lanes.load(kept + 4 * H + j)), c = lanes.load(before + j);
        const auto g = lanes.load(of_hidden + j);
        auto of_c = lanes.load(of_cell + j) + g * output * (T(1) - seen * seen);
        if (s.options->clip) of_c = through_clip(forget * c + input * candidate, *s.options, of_c);
        lanes.store(of_gates + j, of_c * candidate * input * (T(1) - input));
        lanes.store(of_gates + H + j, of_c * c * forget * (T(1) - forget));
        lanes.store(of_gates + 2 * H + j, of_c * input * (T(1) - candidate * candidate));
        lanes.store(of_gates + 3 * H + j, g * seen * output * (T(1) - output));
        lanes.store(of_cell + j, of_c * forget);
        lanes.store(of_hidden + j, lanes.zero());
      });
    }
  }

  // H' again, from what was saved: the projection's gradient needs it.
  static void output(const StepBackward<T>& s, Matrix<T> to) {
    const long H = s.hidden;
    for (long n = 0; n < s.rows; ++n) {
      const T* kept = s.saved.row(n);
      each_pair<T>(H, [&](auto lanes, long j) __attribute__((always_inline)) {
        lanes.store(to.row(n) + j, lanes.load(kept + 3 * H + j) * tanh<T>(lanes.load(kept + 4 * H + j)));
      });
    }
  }

 private:
  template <class V>
  static DEEPRNN_INLINE V clip(V c, const Options& options) {
    if (!options.clip) return c;
    const T low = static_cast<T>(options.clip_min), high = static_cast<T>(options.clip_max);
    if (options.clip_nan) c = instead_of_nan<T>(low, c);
    return bounded_above<T>(high, bounded_below<T>(low, c));
  }

  // The gradient of `c` from that of the clipped one; none where a NaN was replaced. A product, as MXNet has it: a NaN
  // that comes from later steps is not lost where c is beyond the limits.
  template <class V>
  static DEEPRNN_INLINE V through_clip(V c, const Options& options, V of_clipped) {
    of_clipped = of_clipped * within<T>(c, static_cast<T>(options.clip_min), static_cast<T>(options.clip_max));
    return options.clip_nan ? where_number<T>(c, of_clipped) : of_clipped;
  }
};

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
