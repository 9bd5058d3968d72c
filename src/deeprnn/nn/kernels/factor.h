// One factor of many products, whose rows may be dealt out to threads.
#pragma once

#include "call.h"
#include "products.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

inline long smaller(long a, long b) { return a < b ? a : b; }
inline long larger(long a, long b) { return a > b ? a : b; }
inline long ceiling(long a, long b) { return (a + b - 1) / b; }

// A factor of many products: packed, or as it lies where the rows are too few to pay for packing.
template <class T>
class Factor {
 public:
  enum class Form { kTransposed, kPlain };  // a weight (cols, k), for A W^T; (k, cols), for A W

  // Of panels that were packed before.
  Factor(long cols, long k, const T* panels) : form_(Form::kTransposed), cols_(cols), k_(k), panels_(panels) {}

  Factor(Form form, long cols, long k, const T* weight, bool few, const Team& team, Workspace& workspace)
      : form_(form), cols_(cols), k_(k), weight_(weight) {
    if (few) return;
    T* panels = workspace.take<T>(packed_size<T>(k, cols));
    panels_ = panels;
    const long count = ceiling(cols, kColumns<T>);
    const int parts = static_cast<int>(smaller(team.threads, count));
    team.each(parts, [&](int part) {
      const long begin = count * part / parts * kColumns<T>;
      const long end = smaller(count * (part + 1) / parts * kColumns<T>, cols);
      if (form == Form::kTransposed)
        pack_transposed(k, end - begin, weight + begin * k, k, panels + begin * k);
      else
        pack(k, end - begin, weight + begin, cols, panels + begin * k);
    });
  }

  void multiply(long rows, const T* a, long stride, Into<T> into) const {
    if (panels_)
      DEEPRNN_ISA::multiply(rows, cols_, k_, a, stride, panels_, into);
    else if (form_ == Form::kTransposed)
      dots(rows, cols_, k_, a, stride, weight_, k_, into);
    else
      combine(rows, cols_, k_, a, stride, weight_, cols_, into);
  }

  // The same with the rows dealt out.
  void multiply(const Team& team, long rows, const T* a, long stride, Into<T> into) const {
    const int parts = static_cast<int>(smaller(team.threads, ceiling(rows, kRows)));
    team.each(parts, [&](int part) {
      const long begin = rows * part / parts, end = rows * (part + 1) / parts;
      multiply(end - begin, a + begin * stride, stride,
               {into.c + begin * into.stride, into.stride, into.bias, into.add});
    });
  }

 private:
  Form form_;
  long cols_, k_;
  const T* weight_ = nullptr;
  const T* panels_ = nullptr;
};

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
