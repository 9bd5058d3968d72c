// Language models without MXNet, for inference.py through ctypes.

#include <new>

#include "process.h"

namespace deeprnn {
namespace {

// A network of either type, with what a call needs of its sizes.
struct AnyNetwork {
  NetworkSizes sizes;
  std::unique_ptr<Network<float>> single;
  std::unique_ptr<Network<double>> precise;

  double multiply_adds() const {
    const double gate_rows = static_cast<double>(gates(sizes.cell)) * sizes.hidden;
    return 2 * gate_rows * sizes.hidden * sizes.layers + static_cast<double>(sizes.hidden) * sizes.symbols;
  }
};

enum Outcome { kDone = 0, kWrongId = 1, kNoMemory = 2 };

template <class T>
NetworkCall<T> call_of(const AnyNetwork& of, long steps, long batch, const std::int64_t* ids, const void* first,
                       void* last, void* logits) {
  const long states = of.sizes.layers * batch * of.sizes.hidden;
  const T* before = static_cast<const T*>(first);
  T* after = static_cast<T*>(last);
  return {steps, batch, ids, before, before + states, after, after + states, static_cast<T*>(logits)};
}

}  // namespace
}  // namespace deeprnn

using namespace deeprnn;

// Null where there is not enough memory, or no kernel. `weights`: see MakeNetwork.
DEEPRNN_EXPORT void* deeprnn_network(const char* cell, int is_double, int residual, long symbols, long embedding,
                                     long hidden, long layers, double scale, const void* const* weights) {
  Cell kind;
  if (!kernels() || !cell_of(cell, &kind)) return nullptr;
  const NetworkSizes sizes = {kind, residual != 0, symbols, embedding, hidden, layers, scale};
  try {
    std::unique_ptr<AnyNetwork> network(new AnyNetwork{sizes, nullptr, nullptr});
    if (is_double)
      network->precise = kernels()->network_double(sizes, reinterpret_cast<const double* const*>(weights));
    else
      network->single = kernels()->network_float(sizes, reinterpret_cast<const float* const*>(weights));
    return network.release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

DEEPRNN_EXPORT void deeprnn_network_free(void* network) { delete static_cast<AnyNetwork*>(network); }

// `first` and `last` are states one after the other, (states, L, N, H). Returns an Outcome.
DEEPRNN_EXPORT int deeprnn_network_run(const void* of, long steps, long batch, const std::int64_t* ids,
                                       const void* first, void* last, void* logits) {
  const AnyNetwork& network = *static_cast<const AnyNetwork*>(of);
  for (long i = 0; i < steps * batch; ++i)
    if (ids[i] < 0 || ids[i] >= network.sizes.symbols) return kWrongId;
  try {
    WorkspaceOfCall here;
    const Team team = team_for(static_cast<double>(steps) * batch * network.multiply_adds());
    if (network.single)
      network.single->run(call_of<float>(network, steps, batch, ids, first, last, logits), team, here.workspace);
    else
      network.precise->run(call_of<double>(network, steps, batch, ids, first, last, logits), team, here.workspace);
    return kDone;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}
