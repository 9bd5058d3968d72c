// What one call of the operator is about: sizes, options, arrays. Shapes are T steps, N sequences, C inputs, H units,
// S units of the hidden state (H, or with a projection P), G = gates * H.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

// Always: a function that two instruction sets compile must not be one function to the linker.
#define DEEPRNN_INLINE inline __attribute__((always_inline))
#define DEEPRNN_EXPORT extern "C" __attribute__((visibility("default")))

namespace deeprnn {

enum class Cell { kTanh, kRelu, kGru, kLstm };

struct Options {
  Cell cell = Cell::kTanh;
  bool reverse = false;
  bool lengths = false;  // an array of lengths comes last
  bool clip = false, clip_nan = false;
  double clip_min = 0, clip_max = 0;
};

// Runs part(context, i) for each i below count, maybe at the same time, and returns when all are done.
struct Team {
  int threads = 1;
  void (*run)(int count, void (*part)(void* context, int i), void* context) = nullptr;

  template <class Part>
  DEEPRNN_INLINE void each(int count, Part part) const {
    if (count == 1)
      part(0);
    else
      run(count, [](void* context, int i) { (*static_cast<Part*>(context))(i); }, &part);
  }
};

template <class T>
struct Call {
  Options options;
  long steps, batch, inputs, hidden, state;
  // In.
  const T* x;           // (T, N, C)
  const T* i2h_weight;  // (G, C)
  const T* i2h_bias;    // (G,)
  const T* h2h_weight;  // (G, S)
  const T* h2h_bias;    // (G,)
  const T* h2r_weight;  // (P, H), or null
  const T* first_hidden;  // (N, S)
  const T* first_cell;    // (N, H), or null
  const long* lengths;    // (N,), or null
  // Out; in again for the gradient.
  T* outputs;      // (T, N, S)
  T* last_hidden;  // (N, S)
  T* last_cell;    // (N, H)
  T* saved;        // (T, N, saved_size) for the gradient, or null
};

template <class T>
struct Gradients {
  const T* outputs;      // (T, N, S)
  const T* last_hidden;  // (N, S)
  const T* last_cell;    // (N, H)
  T* x;
  T* i2h_weight;
  T* i2h_bias;
  T* h2h_weight;
  T* h2h_bias;
  T* h2r_weight;
  T* first_hidden;
  T* first_cell;
};

// Numbers that a step of one sequence keeps for the gradient: the gates after their non-linearities, and what else.
DEEPRNN_INLINE long saved_size(Cell cell, long hidden) {
  switch (cell) {
    case Cell::kGru: return 4 * hidden;   // reset, update, candidate, recurrent part of the candidate
    case Cell::kLstm: return 5 * hidden;  // input, forget, candidate, output, cell state
    default: return 0;                    // the outputs say all
  }
}

// Whether there is a cell of this name.
DEEPRNN_INLINE bool cell_of(const char* name, Cell* cell) {
  static const char* const kNames[] = {"tanh", "relu", "gru", "lstm"};  // in the order of Cell
  for (int i = 0; i < 4; ++i)
    if (!std::strcmp(name, kNames[i])) return *cell = static_cast<Cell>(i), true;
  return false;
}

DEEPRNN_INLINE int gates(Cell cell) { return cell == Cell::kGru ? 3 : cell == Cell::kLstm ? 4 : 1; }

// Memory for one call, handed out in blocks and kept by the thread for the next call.
class Workspace {
 public:
  template <class T>
  DEEPRNN_INLINE T* take(long count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  virtual ~Workspace() = default;

 private:
  virtual void* take_bytes(std::size_t bytes) = 0;
};

// A language model for generating and scoring: its weights are packed once, and a call has no operators.
struct NetworkSizes {
  Cell cell;
  bool residual;
  long symbols, embedding, hidden, layers;  // V, E (0: one-hot), H, L
  double scale;  // of the embedding
};

template <class T>
struct NetworkCall {
  long steps, batch;
  const std::int64_t* ids;    // (T, N), from 0 to V - 1
  const T *first_hidden, *first_cell;  // (L, N, H), the second for an LSTM
  T *last_hidden, *last_cell;
  T* logits;  // (T, N, V)
};

template <class T>
class Network {
 public:
  virtual ~Network() = default;
  virtual void run(const NetworkCall<T>& call, const Team& team, Workspace& workspace) const = 0;
};

// Its weights: embedding (V, E) where there is one; i2h_weight, h2h_weight, i2h_bias, h2h_bias of each layer; weight
// (V, H) and bias (V,) of the decoder. They are copied.
template <class T>
using MakeNetwork = std::unique_ptr<Network<T>> (*)(const NetworkSizes&, const T* const* weights);

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  void (*forward_float)(const Call<float>&, const Team&, Workspace&);
  void (*forward_double)(const Call<double>&, const Team&, Workspace&);
  void (*backward_float)(const Call<float>&, const Gradients<float>&, const Team&, Workspace&);
  void (*backward_double)(const Call<double>&, const Gradients<double>&, const Team&, Workspace&);
  MakeNetwork<float> network_float;
  MakeNetwork<double> network_double;
};

extern const Kernels kAvx2, kAvx512;

}  // namespace deeprnn
