// A language model without gradients: the weights are packed once, for all calls.
//
//   ids -> input part of the first layer -> layers -> decoder -> logits
//
// Rows of the batch do not meet, and packed products add in one order for any number of rows: the logits of a sequence
// are the same, to the last bit, alone and among others, in one call of many steps and in many calls.
#pragma once

#include <cstdlib>
#include <new>
#include <vector>

#include "recurrence.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

constexpr long kTableNumbers = 1 << 22;  // of the first layer's input part: as many are kept for all symbols

// Numbers at the start of a cache line.
template <class T>
class Block {
 public:
  Block() = default;
  explicit Block(long count) {
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    first_.reset(static_cast<T*>(std::aligned_alloc(64, bytes ? bytes : 64)));
    if (!first_) throw std::bad_alloc();
  }
  T* get() const { return first_.get(); }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> first_;
};

// A weight (cols, k) and the bias of its product.
template <class T>
struct Packed {
  Block<T> panels, bias;
  long cols = 0, k = 0;

  void pack(long of_cols, long of_k, const T* weight) {
    cols = of_cols, k = of_k;
    panels = Block<T>(packed_size<T>(k, cols));
    pack_transposed(k, cols, weight, k, panels.get());
  }
  Factor<T> factor() const { return {cols, k, panels.get()}; }
};

template <class T, class CellOf>
class NetworkOf final : public Network<T> {
 public:
  NetworkOf(const NetworkSizes& sizes, const T* const* weights) : sizes_(sizes), layers_(sizes.layers) {
    const long V = sizes.symbols, E = sizes.embedding, H = sizes.hidden, G = CellOf::kGates * H;
    const T* embedding = E ? *weights++ : nullptr;
    for (long l = 0; l < sizes.layers; ++l, weights += 4) {
      Layer& layer = layers_[l];
      layer.h2h.pack(G, H, weights[1]);
      layer.h2h.bias = Block<T>(G);
      copy(weights[3], layer.h2h.bias.get(), G);
      layer.i2h.bias = Block<T>(G);
      add_biases<T, CellOf>(G, weights[2], weights[3], layer.i2h.bias.get());
      if (l > 0)
        layer.i2h.pack(G, H, weights[0]);
      else if (E)
        layer.i2h.pack(G, E, weights[0]);
      else
        tabulate(V, G, weights[0], layer.i2h.bias.get());
    }
    if (E) {
      embedding_ = Block<T>(V * E);
      for (long i = 0; i < V * E; ++i) embedding_.get()[i] = static_cast<T>(sizes.scale) * embedding[i];
      if (V * G <= kTableNumbers) {
        table_ = Block<T>(V * G);
        const Packed<T>& i2h = layers_[0].i2h;
        i2h.factor().multiply(V, embedding_.get(), E, {table_.get(), G, i2h.bias.get(), false});
      }
    }
    decoder_.pack(V, H, weights[0]);
    decoder_.bias = Block<T>(V);
    copy(weights[1], decoder_.bias.get(), V);
  }

  void run(const NetworkCall<T>& of, const Team& team, Workspace& workspace) const override {
    const long N = of.batch, H = sizes_.hidden, V = sizes_.symbols, rows = of.steps * N;
    T* below = sizes_.layers > 1 ? workspace.take<T>(rows * H) : nullptr;
    T* outputs = workspace.take<T>(rows * H);
    T* embedded = table_.get() ? nullptr : workspace.take<T>(rows * sizes_.embedding);
    const Factor<T> unprojected(0, 0, nullptr);
    for (long l = 0; l < sizes_.layers; ++l) {
      const Layer& layer = layers_[l];
      Call<T> call = {};
      call.options.cell = sizes_.cell;
      call.steps = of.steps, call.batch = N, call.hidden = call.state = H;
      call.h2h_bias = layer.h2h.bias.get();
      call.first_hidden = of.first_hidden + l * N * H, call.last_hidden = of.last_hidden + l * N * H;
      if (CellOf::kHasCell) call.first_cell = of.first_cell + l * N * H, call.last_cell = of.last_cell + l * N * H;
      call.outputs = outputs;
      const auto of_symbols = [&](const Team& by, long first, long count, T* to, long stride) {
        input_part_of(by, of.ids, first, count, embedded, to, stride);
      };
      const auto of_outputs = [&](const Team& by, long first, long count, T* to, long stride) {
        layer.i2h.factor().multiply(by, count, below + first * H, H, {to, stride, layer.i2h.bias.get(), false});
      };
      const InputPart<T> input_part = l == 0 ? InputPart<T>(of_symbols) : InputPart<T>(of_outputs);
      carry<T, CellOf>(call, input_part, layer.h2h.factor(), unprojected, team, workspace);
      if (sizes_.residual && l > 0)
        for (long i = 0; i < rows * H; ++i) outputs[i] += below[i];
      T* free = below;
      below = outputs, outputs = free;
    }
    decoder_.factor().multiply(team, rows, below, H, {of.logits, V, decoder_.bias.get(), false});
  }

 private:
  struct Layer {
    Packed<T> i2h, h2h;
  };

  // The input part of each symbol, of a weight (G, V) for one-hot vectors.
  void tabulate(long V, long G, const T* weight, const T* bias) {
    table_ = Block<T>(V * G);
    for (long v = 0; v < V; ++v)
      for (long j = 0; j < G; ++j) table_.get()[v * G + j] = weight[j * V + v] + bias[j];
  }

  void input_part_of(const Team& team, const std::int64_t* ids, long first, long rows, T* embedded, T* to,
                     long stride) const {
    const long E = sizes_.embedding, G = CellOf::kGates * sizes_.hidden;
    ids += first;
    if (table_.get()) {
      for (long i = 0; i < rows; ++i) copy(table_.get() + ids[i] * G, to + i * stride, G);
      return;
    }
    embedded += first * E;
    for (long i = 0; i < rows; ++i) copy(embedding_.get() + ids[i] * E, embedded + i * E, E);
    const Packed<T>& i2h = layers_[0].i2h;
    i2h.factor().multiply(team, rows, embedded, E, {to, stride, i2h.bias.get(), false});
  }

  NetworkSizes sizes_;
  Block<T> table_;      // (V, G), or nothing where it would be large
  Block<T> embedding_;  // (V, E), scaled
  std::vector<Layer> layers_;
  Packed<T> decoder_;
};

template <class T>
std::unique_ptr<Network<T>> network(const NetworkSizes& sizes, const T* const* weights) {
  switch (sizes.cell) {
    case Cell::kTanh: return std::make_unique<NetworkOf<T, Elman<T, Cell::kTanh>>>(sizes, weights);
    case Cell::kRelu: return std::make_unique<NetworkOf<T, Elman<T, Cell::kRelu>>>(sizes, weights);
    case Cell::kGru: return std::make_unique<NetworkOf<T, Gru<T>>>(sizes, weights);
    case Cell::kLstm: return std::make_unique<NetworkOf<T, Lstm<T>>>(sizes, weights);
  }
  return nullptr;
}

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
