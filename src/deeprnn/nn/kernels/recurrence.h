// One layer in one direction, carried through time: forward, and back-propagation through time.
//
// The steps are taken in chunks, so that what one pass writes is still in the cache when the next one reads it:
//
//   forward, a chunk:   the input part of all its steps (one product, if one thread has all rows), then step by step
//                       product and non-linearity
//   backward, a chunk:  step by step (last first) derivative and product, then the gradients of the inputs and, summed
//                       over the chunk, of the weights, as one product each
//
// Rows of the batch do not meet, so that they are dealt out to threads; the gradient of a weight is dealt out by its
// rows. So what is computed does not depend on the number of threads, to the last bit.
#pragma once

#include "cells.h"
#include "factor.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

constexpr long kChunkBytes = 192 * 1024;  // of the input part, forward: what stays in the second cache
constexpr long kChunkRows = 384;  // steps times sequences, backward: the depth of the weights' product

template <class T>
inline void copy(const T* from, T* to, long count) {
  if (count > 0) std::memcpy(to, from, sizeof(T) * static_cast<std::size_t>(count));
}

template <class T>
inline void clear(T* to, long count) {
  if (count > 0) std::memset(to, 0, sizeof(T) * static_cast<std::size_t>(count));
}

// Steps in the order in which they are taken forward, and the states around each.
template <class T>
struct Time {
  const Call<T>& call;

  long step(long taken) const { return call.options.reverse ? call.steps - 1 - taken : taken; }
  bool alive(long t, long n) const { return !call.lengths || t < call.lengths[n]; }

  // A state before step t, of sequence n: that after the step before, or the first one where none was taken.
  const T* before(long t, long n, const T* first, long first_stride, const T* after, long stride) const {
    const bool is_first = call.options.reverse ? t + 1 >= (call.lengths ? call.lengths[n] : call.steps) : t == 0;
    return is_first ? first + n * first_stride
                    : after + ((call.options.reverse ? t + 1 : t - 1) * call.batch + n) * stride;
  }

  // The same for sequences begin to end, which lie in the arrays already unless their lengths differ.
  Matrix<const T> before(long t, long begin, long end, const T* first, const T* after, long stride, long size,
                         T* workspace) const {
    if (!call.lengths) return {before(t, begin, first, size, after, stride), taken(t) == 0 ? size : stride};
    for (long n = begin; n < end; ++n)
      copy(before(t, n, first, size, after, stride), workspace + (n - begin) * size, size);
    return {workspace, size};
  }

  long taken(long t) const { return call.options.reverse ? call.steps - 1 - t : t; }
};

template <class T>
const T* zeros(long count, Workspace& workspace) {
  T* to = workspace.take<T>(count);
  clear(to, count);
  return to;
}

// Add the rows of A (k, cols) up into `sums`, and the sums into `to`.
template <class T>
void add_rows(long k, long cols, const T* a, long stride, T* sums, T* to, bool add) {
  clear(sums, cols);
  for (long p = 0; p < k; ++p)
    each_vector<T>(cols, [&](auto lanes, long j) __attribute__((always_inline)) {
      lanes.store(sums + j, lanes.load(sums + j) + lanes.load(a + p * stride + j));
    });
  for (long j = 0; j < cols; ++j) to[j] = add ? to[j] + sums[j] : sums[j];
}

// Sequences that a thread takes; never so few that the products starve.
inline int row_parts(const Team& team, long batch) {
  return static_cast<int>(smaller(team.threads, ceiling(batch, 4)));
}

// Calls work(team, first, rows) for the rows that sequences begin to end have in some steps: those of a step lie together,
// those of two do not. The only part has all rows at once, and the threads for them.
template <class Work>
DEEPRNN_INLINE void each_stretch(const Team& team, int parts, long steps, long batch, long begin, long end, Work work) {
  if (parts == 1) return work(team, 0, steps * batch);
  for (long t = 0; t < steps; ++t) work(Team{}, t * batch + begin, end - begin);
}

// Writes the input part of `rows` steps and sequences, from row `first` on, to (rows, G).
template <class T>
class InputPart {
 public:
  template <class Write>
  InputPart(const Write& write)
      : write_(&write), call_([](const void* of, const Team& team, long first, long rows, T* to, long stride) {
          (*static_cast<const Write*>(of))(team, first, rows, to, stride);
        }) {}
  void operator()(const Team& team, long first, long rows, T* to, long stride) const {
    call_(write_, team, first, rows, to, stride);
  }

 private:
  const void* write_;
  void (*call_)(const void* write, const Team& team, long first, long rows, T* to, long stride);
};

// All steps, from the input part, which has the bias in it.
template <class T, class CellOf>
void carry(const Call<T>& call, const InputPart<T>& write_input_part, const Factor<T>& h2h, const Factor<T>& h2r,
           const Team& team, Workspace& workspace) {
  const long T_ = call.steps, N = call.batch, H = call.hidden, S = call.state;
  const long G = CellOf::kGates * H, kept = saved_size(call.options.cell, H);
  constexpr bool has_cell = CellOf::kHasCell;
  const Time<T> time{call};

  // Where the input part of a chunk goes: where its results will stand, if they take as much.
  const bool in_outputs = CellOf::kGates == 1, in_saved = has_cell && call.saved;
  const long stride = in_saved ? kept : G;
  // Each chunk reads both weights. Where they come from the third cache, short chunks let them push each other out of it.
  const long bytes = static_cast<long>(sizeof(T)) * G;
  const long least = larger(ceiling(4 * kRows, N), bytes * S > kFarBytes ? kBlockRows<T> / N : 1);
  const long chunk = smaller(T_, larger(least, kChunkBytes / (bytes * N)));
  T* scratch = in_outputs || in_saved ? nullptr : workspace.take<T>(chunk * N * G);
  T* recurrent = CellOf::kSeparate ? workspace.take<T>(N * G) : nullptr;
  T* unprojected = call.h2r_weight ? workspace.take<T>(N * H) : nullptr;
  T* gathered = call.lengths ? workspace.take<T>(N * S) : nullptr;

  if constexpr (has_cell) copy(call.first_cell, call.last_cell, N * H);
  T* alive_cells = call.lengths && has_cell ? workspace.take<T>(N * H) : nullptr;
  const int parts = row_parts(team, N);

  // Each part goes through all steps by itself: threads that met after each chunk would wait for each other.
  team.each(parts, [&](int part) {
    const long begin = N * part / parts, end = N * (part + 1) / parts, rows = end - begin;
    for (long done = 0; done < T_; done += chunk) {
      const long count = smaller(chunk, T_ - done);
      const long low = call.options.reverse ? T_ - done - count : done;  // the chunk's first step in memory
      T* input_part = in_outputs ? call.outputs + low * N * H : in_saved ? call.saved + low * N * kept : scratch;
      each_stretch(team, parts, count, N, begin, end, [&](const Team& by, long first, long size) {
        write_input_part(by, low * N + first, size, input_part + first * stride, stride);
      });

      for (long taken = done; taken < done + count; ++taken) {
        const long t = time.step(taken);
        const Matrix<T> in = {input_part + ((t - low) * N + begin) * stride, stride};
        const Matrix<const T> before = time.before(t, begin, end, call.first_hidden, call.outputs, S, S,
                                                   gathered ? gathered + begin * S : nullptr);
        if (CellOf::kSeparate)
          h2h.multiply(rows, before.first, before.stride, {recurrent + begin * G, G, call.h2h_bias, false});
        else
          h2h.multiply(rows, before.first, before.stride, {in.first, stride, nullptr, true});
        T* outputs = call.outputs + (t * N + begin) * S;
        T* cell = has_cell ? call.last_cell + begin * H : nullptr;
        if constexpr (has_cell)
          if (alive_cells) copy(cell, alive_cells + begin * H, rows * H);
        StepForward<T> step = {rows,         H,
                               in,           {recurrent + begin * G, G},
                               before,       {outputs, S},
                               {cell, H},    {call.saved ? call.saved + (t * N + begin) * kept : nullptr, kept},
                               &call.options};
        if (unprojected) step.after = {unprojected + begin * H, H};
        CellOf::forward(step);
        if (unprojected) h2r.multiply(rows, unprojected + begin * H, H, {outputs, S, nullptr, false});
        if (!call.lengths) continue;
        for (long n = begin; n < end; ++n) {
          if (time.alive(t, n)) continue;
          clear(call.outputs + (t * N + n) * S, S);
          if constexpr (has_cell) copy(alive_cells + n * H, call.last_cell + n * H, H);
        }
      }
    }
  });
  for (long n = 0; n < N; ++n) {
    const long length = call.lengths ? call.lengths[n] : T_;
    const T* last =
        length == 0 ? call.first_hidden + n * S : call.outputs + ((call.options.reverse ? 0 : length - 1) * N + n) * S;
    copy(last, call.last_hidden + n * S, S);
  }
}

// What the input part has of the biases: both, where the formula has their sum.
template <class T, class CellOf>
void add_biases(long count, const T* i2h_bias, const T* h2h_bias, T* to) {
  for (long j = 0; j < count; ++j) to[j] = CellOf::kSeparate ? i2h_bias[j] : i2h_bias[j] + h2h_bias[j];
}

template <class T, class CellOf>
void forward(const Call<T>& call, const Team& team, Workspace& workspace) {
  const long T_ = call.steps, N = call.batch, C = call.inputs, H = call.hidden, S = call.state;
  const long G = CellOf::kGates * H;
  constexpr auto kTransposed = Factor<T>::Form::kTransposed;
  const bool few = N <= kFewRows || T_ * N <= kFewInAll;
  const Factor<T> i2h(kTransposed, G, C, call.i2h_weight, T_ * N <= kFewInAll, team, workspace);
  const Factor<T> h2h(kTransposed, G, S, call.h2h_weight, few, team, workspace);
  const Factor<T> h2r(kTransposed, S, H, call.h2r_weight, few || !call.h2r_weight, team, workspace);
  T* bias = workspace.take<T>(G);
  add_biases<T, CellOf>(G, call.i2h_bias, call.h2h_bias, bias);
  const auto write_input_part = [&](const Team& by, long first, long rows, T* to, long stride) {
    i2h.multiply(by, rows, call.x + first * C, C, {to, stride, bias, false});
  };
  carry<T, CellOf>(call, write_input_part, h2h, h2r, team, workspace);
}

template <class T, class CellOf>
void backward(const Call<T>& call, const Gradients<T>& of, const Team& team, Workspace& workspace) {
  const long T_ = call.steps, N = call.batch, C = call.inputs, H = call.hidden, S = call.state;
  const long G = CellOf::kGates * H, kept = saved_size(call.options.cell, H);
  constexpr bool has_cell = CellOf::kHasCell;
  const Time<T> time{call};
  using Form = typename Factor<T>::Form;

  const bool few = N <= kFewRows || T_ * N <= kFewInAll;
  const Factor<T> i2h(Form::kPlain, C, G, call.i2h_weight, T_ * N <= kFewInAll, team, workspace);
  const Factor<T> h2h(Form::kPlain, S, G, call.h2h_weight, few, team, workspace);
  const Factor<T> h2r(Form::kPlain, H, S, call.h2r_weight, few || !call.h2r_weight, team, workspace);

  const long chunk = smaller(T_, larger(1, kChunkRows / N));
  T* of_input_part = workspace.take<T>(chunk * N * G);
  T* of_recurrent_part = CellOf::kSeparate ? workspace.take<T>(chunk * N * G) : of_input_part;
  T* of_unprojected = call.h2r_weight ? workspace.take<T>(N * H) : nullptr;
  T* unprojected = call.h2r_weight ? workspace.take<T>(N * H) : nullptr;
  T* of_outputs = call.h2r_weight ? workspace.take<T>(chunk * N * S) : nullptr;
  T* gathered = call.lengths ? workspace.take<T>(N * S) : nullptr;
  T* cells_gathered = call.lengths && has_cell ? workspace.take<T>(N * H) : nullptr;
  const int weight_parts = static_cast<int>(smaller(team.threads, ceiling(G, 8 * kRows)));
  // The factors of the weights' gradients: inputs, hidden states before each step, and unprojected ones after it.
  T* x_panels = workspace.take<T>(packed_size<T>(chunk * N, C));
  T* before_panels = workspace.take<T>(packed_size<T>(chunk * N, S));
  T* unprojected_panels = call.h2r_weight ? workspace.take<T>(packed_size<T>(chunk * N, H)) : nullptr;
  T* blocks = workspace.take<T>(weight_parts * kBlockNumbers<T>);
  const T* nothing = zeros<T>(larger(C, H), workspace);
  T* sums = workspace.take<T>(G);

  // The gradients of the states go from step to step in the places where those of the first states are wanted.
  copy(of.last_hidden, of.first_hidden, N * S);
  if constexpr (has_cell) copy(of.last_cell, of.first_cell, N * H);
  const int parts = row_parts(team, N);

  for (long left = T_; left > 0; left -= chunk) {
    const long count = smaller(chunk, left), done = left - count;
    const long low = call.options.reverse ? T_ - done - count : done;
    const bool first_chunk = left == T_;

    team.each(parts, [&](int part) {
      const long begin = N * part / parts, end = N * (part + 1) / parts, rows = end - begin;
      for (long taken = left - 1; taken >= done; --taken) {
        const long t = time.step(taken), at = ((t - low) * N + begin);
        T* carried = of.first_hidden + begin * S;
        for (long n = begin; n < end; ++n) {
          if (!time.alive(t, n)) continue;
          T* to = of.first_hidden + n * S;
          const T* from = of.outputs + (t * N + n) * S;
          each_vector<T>(S, [&](auto lanes, long j) __attribute__((always_inline)) {
            lanes.store(to + j, lanes.load(to + j) + lanes.load(from + j));
          });
        }
        T* of_hidden = carried;
        if (of_unprojected) {
          of_hidden = of_unprojected + begin * H;
          copy(carried, of_outputs + at * S, rows * S);
          h2r.multiply(rows, carried, S, {of_hidden, H, nullptr, false});
        }
        StepBackward<T> step = {};
        step.rows = rows, step.hidden = H, step.options = &call.options;
        step.before = time.before(t, begin, end, call.first_hidden, call.outputs, S, S,
                                  gathered ? gathered + begin * S : nullptr);
        step.after = {call.outputs + (t * N + begin) * S, S};
        step.saved = {call.saved + (t * N + begin) * kept, kept};
        if (has_cell)
          step.cell_before = time.before(t, begin, end, call.first_cell, call.saved + 4 * H, kept, H,
                                         cells_gathered ? cells_gathered + begin * H : nullptr);
        step.of_hidden = {of_hidden, of_unprojected ? H : S};
        step.of_cell = {has_cell ? of.first_cell + begin * H : nullptr, H};
        step.of_input_part = {of_input_part + at * G, G};
        step.of_recurrent_part = {of_recurrent_part + at * G, G};
        const auto back = [&](StepBackward<T> part_of, long first) {
          CellOf::backward(part_of);
          if (!call.h2r_weight) return;
          Lstm<T>::output(part_of, {unprojected + (begin + first) * H, H});
          clear(carried + first * S, part_of.rows * S);
        };
        if (!call.lengths) {
          back(step, 0);
        } else {
          for (long n = 0; n < rows; ++n) {
            if (time.alive(t, begin + n)) {
              back(step.sequence(n), n);
              continue;
            }
            // Nothing was learnt at this step, and the gradient of the state goes past it.
            clear(of_input_part + (at + n) * G, G);
            clear(of_recurrent_part + (at + n) * G, G);
            if (!call.h2r_weight) continue;
            clear(of_outputs + (at + n) * S, S);
          }
        }
        for (long n = 0; n < rows; ++n) {
          const bool alive = time.alive(t, begin + n);
          pack_row(at + n, count * N, C, alive ? call.x + (t * N + begin + n) * C : nothing, x_panels);
          pack_row(at + n, count * N, S, step.before.row(n), before_panels);
          if (unprojected)
            pack_row(at + n, count * N, H, alive ? unprojected + (begin + n) * H : nothing, unprojected_panels);
        }
        h2h.multiply(rows, of_recurrent_part + at * G, G, {carried, S, nullptr, true});
      }
      each_stretch(team, parts, count, N, begin, end, [&](const Team& by, long first, long size) {
        i2h.multiply(by, size, of_input_part + first * G, G, {of.x + (low * N + first) * C, C, nullptr, false});
      });
    });

    team.each(weight_parts, [&](int part) {
      const long begin = G * part / weight_parts, end = G * (part + 1) / weight_parts, rows = end - begin;
      T* block = blocks + part * kBlockNumbers<T>;
      multiply_transposed(rows, C, count * N, of_input_part + begin, G, x_panels,
                          {of.i2h_weight + begin * C, C, nullptr, !first_chunk}, block);
      multiply_transposed(rows, S, count * N, of_recurrent_part + begin, G, before_panels,
                          {of.h2h_weight + begin * S, S, nullptr, !first_chunk}, block);
      add_rows(count * N, rows, of_input_part + begin, G, sums + begin, of.i2h_bias + begin, !first_chunk);
      if (CellOf::kSeparate)
        add_rows(count * N, rows, of_recurrent_part + begin, G, sums + begin, of.h2h_bias + begin, !first_chunk);
    });
    if (of_outputs)
      multiply_transposed(S, H, count * N, of_outputs, S, unprojected_panels, {of.h2r_weight, H, nullptr, !first_chunk},
                          blocks);
  }
  if (!CellOf::kSeparate) copy(of.i2h_bias, of.h2h_bias, G);
}

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
