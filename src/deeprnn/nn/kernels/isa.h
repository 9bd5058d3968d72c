// The kernels of one instruction set, as a table. Each isa_*.cc compiles this with its own width and flags.
#pragma once

#include "inference.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

template <class T>
void run_forward(const Call<T>& call, const Team& team, Workspace& workspace) {
  switch (call.options.cell) {
    case Cell::kTanh: return forward<T, Elman<T, Cell::kTanh>>(call, team, workspace);
    case Cell::kRelu: return forward<T, Elman<T, Cell::kRelu>>(call, team, workspace);
    case Cell::kGru: return forward<T, Gru<T>>(call, team, workspace);
    case Cell::kLstm: return forward<T, Lstm<T>>(call, team, workspace);
  }
}

template <class T>
void run_backward(const Call<T>& call, const Gradients<T>& of, const Team& team, Workspace& workspace) {
  switch (call.options.cell) {
    case Cell::kTanh: return backward<T, Elman<T, Cell::kTanh>>(call, of, team, workspace);
    case Cell::kRelu: return backward<T, Elman<T, Cell::kRelu>>(call, of, team, workspace);
    case Cell::kGru: return backward<T, Gru<T>>(call, of, team, workspace);
    case Cell::kLstm: return backward<T, Lstm<T>>(call, of, team, workspace);
  }
}

constexpr Kernels kernels(const char* name) {
  return {name,           run_forward<float>, run_forward<double>, run_backward<float>, run_backward<double>,
          network<float>, network<double>};
}

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
