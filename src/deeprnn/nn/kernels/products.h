// Matrix products, with one factor laid out beforehand ("packed") so that each step reads it in order.
//
//                cols                      a panel: kColumns columns of B, all k, one after the other in memory
//             k  +---+---+---+
//                | B |   |   |             a tile: up to kRows rows by kColumns columns of C, held in registers while
//         k      +---+---+---+             k runs: each k costs two loads of B, and one of A a row
//   rows +---+   +---+---+---+
//        | A |   | C |   |   |
//        +---+   +---+---+---+
//
// Numbers are added in an order that depends on k alone, neither on the number of rows nor on threads.
#pragma once

#include "vectors.h"

namespace deeprnn {
namespace DEEPRNN_ISA {

constexpr int kVectors = 2;              // of a tile's width
constexpr int kRows = DEEPRNN_TILE_ROWS;  // of a tile: kRows * kVectors sums, kVectors of B and one of A are registers
constexpr long kPanelBytes = 24 * 1024;  // of a panel at a time, so that it stays in the first cache
constexpr long kDepth = kPanelBytes / (kVectors * DEEPRNN_VECTOR_BYTES);  // of k at a time, at the most
constexpr long kBlockBytes = 200 * 1024;  // of rows of A, which many panels pass: they stay in the second cache
constexpr long kFarBytes = 2 << 20;  // of B, from which on it comes from beyond the second cache
constexpr long kLineBytes = 64;  // of a line of the caches

template <class T>
constexpr int kColumns = kVectors * kWidth<T>;

// Rows of A that all panels pass before the next ones.
template <class T>
constexpr long kBlockRows = kBlockBytes / (kDepth * static_cast<long>(sizeof(T))) / kRows * kRows;
template <class T>
constexpr long kBlockNumbers = kBlockRows<T> * kDepth;

constexpr long round_up(long x, long to) { return (x + to - 1) / to * to; }

// Numbers that a packed matrix of (k, cols) takes.
template <class T>
constexpr long packed_size(long k, long cols) {
  return k * round_up(cols, kColumns<T>);
}

// B (k, cols) from its transpose (cols, k), as weights come, or as it is. What is beyond cols is zero.
template <class T>
void pack_transposed(long k, long cols, const T* from, long stride, T* panels) {
  for (long j = 0; j < cols; j += kColumns<T>, panels += k * kColumns<T>) {
    const int width = static_cast<int>(cols - j < kColumns<T> ? cols - j : kColumns<T>);
    for (long p = 0; p < k; p += kSquare) {
      const int depth = static_cast<int>(k - p < kSquare ? k - p : kSquare);
      T* to = panels + p * kColumns<T>;
      for (int i = 0; i < kColumns<T>; i += kSquare) {
        const int rows = width - i < kSquare ? width - i : kSquare;
        const T* square = from + (j + i) * stride + p;
        if (rows == kSquare && depth == kSquare)
          transpose_square(square, stride, to + i, kColumns<T>);
        else
          transpose(rows, depth, square, stride, to + i, kColumns<T>);
      }
      for (int q = 0; q < depth; ++q)
        for (int i = width; i < kColumns<T>; ++i) to[q * kColumns<T> + i] = T(0);
    }
  }
}

// Row p of B (k, cols).
template <class T>
void pack_row(long p, long k, long cols, const T* row, T* panels) {
  panels += p * kColumns<T>;
  for (long j = 0; j < cols; j += kColumns<T>, panels += k * kColumns<T>) {
    if (cols - j >= kColumns<T>) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(panels + v * kWidth<T>, load(row + j + v * kWidth<T>));
    } else {
      for (long i = 0; i < kColumns<T>; ++i) panels[i] = i < cols - j ? row[j + i] : T(0);
    }
  }
}

template <class T>
void pack(long k, long cols, const T* from, long stride, T* panels) {
  for (long p = 0; p < k; ++p) pack_row(p, k, cols, from + p * stride, panels);
}

// What becomes of a tile's sums.
template <class T>
struct Into {
  T* c;
  long stride;
  const T* bias;  // added to the sums of each row, unless null
  bool add;  // to what is there
};

// How A is read: row by row with a stride, or packed by rows of tiles, (k, kRows) each.
enum class Rows { kStrided, kPacked };

// R rows by P panels, which lie `apart` numbers apart.
template <class T, int R, Rows kRowsOf, int P = 1>
DEEPRNN_INLINE void tile(long k, const T* a, long stride, const T* panel, long width, Into<T> into, long apart = 0) {
  constexpr int kAcross = P * kVectors;
  Vector<T> sums[R][kAcross] = {};
  // C is touched last; where it is large, it would be waited for.
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) __builtin_prefetch(into.c + r * into.stride, 1);
  for (long p = 0; p < k; ++p, panel += kColumns<T>) {
    Vector<T> b[kAcross];
#pragma GCC unroll 8
    for (int v = 0; v < kAcross; ++v) b[v] = load(panel + v / kVectors * apart + v % kVectors * kWidth<T>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T from_a = kRowsOf == Rows::kPacked ? a[p * kRows + r] : a[r * stride + p];
#pragma GCC unroll 8
      for (int v = 0; v < kAcross; ++v) sums[r][v] += from_a * b[v];
    }
  }
  const auto finish = [&](auto lanes, int r, int v) __attribute__((always_inline)) {
    T* c = into.c + r * into.stride + v * kWidth<T>;
    Vector<T> sum = sums[r][v];
    if (into.bias) sum += lanes.load(into.bias + v * kWidth<T>);
    if (into.add) sum += lanes.load(c);
    lanes.store(c, sum);
  };
  if (width >= P * kColumns<T>) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kAcross; ++v) finish(Whole<T>{}, r, v);
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kAcross; ++v) {
        const long left = width - v * kWidth<T>;
        if (left >= kWidth<T>)
          finish(Whole<T>{}, r, v);
        else if (left > 0)
          finish(Part<T>{static_cast<int>(left)}, r, v);
      }
  }
}

template <class T, Rows kRowsOf>
using Tile = void (*)(long k, const T* a, long stride, const T* panel, long width, Into<T> into);

template <class T, int R, Rows kRowsOf>
void tile_of(long k, const T* a, long stride, const T* panel, long width, Into<T> into) {
  tile<T, R, kRowsOf>(k, a, stride, panel, width, into);
}

template <class T, Rows kRowsOf, int R = kRows>
struct Tiles : Tiles<T, kRowsOf, R - 1> {
  Tiles() { this->by_rows[R] = tile_of<T, R, kRowsOf>; }
};

template <class T, Rows kRowsOf>
struct Tiles<T, kRowsOf, 0> {
  Tile<T, kRowsOf> by_rows[kRows + 1] = {};
};

// Few rows have too few sums to hide how long an addition takes, so that they take several panels at once. As many of
// the columns as fill them are done, and their number is returned.
template <class T, int R, int P>
long multiply_few(long cols, long k, long depth, const T* a, long stride, const T* panels, Into<T> into) {
  long j = 0;
  for (; j + P * kColumns<T> <= cols; j += P * kColumns<T>)
    tile<T, R, Rows::kStrided, P>(depth, a, stride, panels + j * k, P * kColumns<T>,
                                  {into.c + j, into.stride, into.bias ? into.bias + j : nullptr, into.add},
                                  k * kColumns<T>);
  return j;
}

// Bring so many numbers nearer.
template <class T>
DEEPRNN_INLINE void fetch(const T* from, long count) {
  constexpr long kLine = kLineBytes / static_cast<long>(sizeof(T));
#pragma GCC unroll 4
  for (long q = 0; q < count; q += kLine) __builtin_prefetch(from + q);
}

template <class T>
void multiply_block(long rows, long cols, long k, const T* a, long stride, const T* panels, Into<T> into) {
  static const Tiles<T, Rows::kStrided> tiles;
  const long blocks = (rows + kRows - 1) / kRows, slabs = (k + kDepth - 1) / kDepth;
  const bool ahead = packed_size<T>(k, cols) * static_cast<long>(sizeof(T)) > kFarBytes;
  for (long slab = 0; slab < slabs; ++slab) {
    const long p = k * slab / slabs, depth = k * (slab + 1) / slabs - p;
    const Into<T> slab_into = {into.c, into.stride, p == 0 ? into.bias : nullptr, into.add || p > 0};
    const T *slab_a = a + p, *slab_panels = panels + p * kColumns<T>;
    const long done = rows == 1   ? multiply_few<T, 1, 4>(cols, k, depth, slab_a, stride, slab_panels, slab_into)
                      : rows == 2 ? multiply_few<T, 2, 2>(cols, k, depth, slab_a, stride, slab_panels, slab_into)
                      : rows == 3 ? multiply_few<T, 3, 2>(cols, k, depth, slab_a, stride, slab_panels, slab_into)
                                  : 0;
    for (long j = done; j < cols; j += kColumns<T>) {
      const T* panel = slab_panels + j * k;
      for (long block = 0; block < blocks; ++block) {
        // Rows are shared out evenly: six and two would leave the two waiting for their sums.
        const long first = rows * block / blocks, size = rows * (block + 1) / blocks - first;
        const Into<T> here = {slab_into.c + first * into.stride + j, into.stride,
                              slab_into.bias ? slab_into.bias + j : nullptr, slab_into.add};
        if (ahead && j + kColumns<T> < cols) {  // this tile's share of the next panel
          const long begin = depth * block / blocks, end = depth * (block + 1) / blocks;
          fetch(panel + (k + begin) * kColumns<T>, (end - begin) * kColumns<T>);
        }
        tiles.by_rows[size](depth, slab_a + first * stride, stride, panel, cols - j, here);
      }
    }
  }
}

// C (rows, cols) = or += A (rows, k) times packed B (k, cols), plus a bias of (cols). Some rows of A meet all panels
// before the next ones.
template <class T>
void multiply(long rows, long cols, long k, const T* a, long stride, const T* panels, Into<T> into) {
  const long blocks = (rows + kBlockRows<T> - 1) / kBlockRows<T>;
  for (long block = 0; block < blocks; ++block) {
    const long begin = rows * block / blocks, end = rows * (block + 1) / blocks;
    multiply_block(end - begin, cols, k, a + begin * stride, stride, panels,
                   {into.c + begin * into.stride, into.stride, into.bias, into.add});
  }
}

// C (rows, cols) = or += A^T B, from A (k, rows) and packed B (k, cols): the gradient of a weight, summed over steps and
// sequences. Some rows of A^T are packed at a time, and meet all panels before the next ones; `workspace` takes them,
// kBlockNumbers numbers.
template <class T>
void multiply_transposed(long rows, long cols, long k, const T* a, long a_stride, const T* panels, Into<T> into,
                         T* workspace) {
  static const Tiles<T, Rows::kPacked> tiles;
  const long slabs = (k + kDepth - 1) / kDepth;
  for (long slab = 0; slab < slabs; ++slab) {
    const long p = k * slab / slabs, depth = k * (slab + 1) / slabs - p;
    for (long begin = 0; begin < rows; begin += kBlockRows<T>) {
      const long end = begin + kBlockRows<T> < rows ? begin + kBlockRows<T> : rows;
      for (long i = begin; i < end; i += kRows) {
        const long size = end - i < kRows ? end - i : kRows;
        T* to = workspace + (i - begin) * depth;
        for (long q = 0; q < depth; ++q)
          for (long r = 0; r < kRows; ++r) to[q * kRows + r] = r < size ? a[(p + q) * a_stride + i + r] : T(0);
      }
      for (long j = 0; j < cols; j += kColumns<T>)
        for (long i = begin; i < end; i += kRows) {
          const long size = end - i < kRows ? end - i : kRows;
          tiles.by_rows[size](depth, workspace + (i - begin) * depth, 0, panels + j * k + p * kColumns<T>, cols - j,
                              {into.c + i * into.stride + j, into.stride, nullptr, into.add || p > 0});
        }
    }
  }
}

// --- few rows: to pack would take as long as the product itself

constexpr int kFewRows = 3;  // in one product: as many as a tile of 4 columns fits into the registers with
constexpr long kFewInAll = 16;  // in all products with the same factor

template <class T, int kBytes>
struct Numbers {
  typedef T Vector __attribute__((vector_size(kBytes)));
};

// The sum of a vector's numbers, half by half.
template <class T, int kBytes>
DEEPRNN_INLINE T sum_of(typename Numbers<T, kBytes>::Vector v) {
  if constexpr (kBytes == sizeof(T)) {
    return v[0];
  } else {
    typename Numbers<T, kBytes / 2>::Vector low, high;
    std::memcpy(&low, &v, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return sum_of<T, kBytes / 2>(low + high);
  }
}

// R rows of A (R, k) by M rows of B: each number is a sum along two rows.
template <class T, int R, int M>
DEEPRNN_INLINE void dots_of(long k, const T* a, long a_stride, const T* b, long b_stride, Into<T> into) {
  constexpr long kStretch = 2 * kLineBytes / static_cast<long>(sizeof(T));
  Vector<T> sums[R][M] = {};
  const auto add = [&](auto lanes, long p) __attribute__((always_inline)) {
    Vector<T> from_a[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) from_a[r] = lanes.load(a + r * a_stride + p);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const Vector<T> from_b = lanes.load(b + i * b_stride + p);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r][i] += from_a[r] * from_b;
    }
  };
  long p = 0;
  for (; p + kStretch <= k; p += kStretch) {
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) fetch(b + (M + i) * b_stride + p, kStretch);  // the next rows: B comes from far
#pragma GCC unroll 8
    for (long q = 0; q < kStretch; q += kWidth<T>) add(Whole<T>{}, p + q);
  }
  each_vector<T>(k - p, [&](auto lanes, long q) __attribute__((always_inline)) { add(lanes, p + q); });
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      T* c = into.c + r * into.stride + i;
      T sum = sum_of<T, DEEPRNN_VECTOR_BYTES>(sums[r][i]);
      if (into.bias) sum += into.bias[i];
      *c = into.add ? *c + sum : sum;
    }
}

// Rows of C = or += A (rows, k) times M rows of B.
template <class T, int M>
DEEPRNN_INLINE void dots_of(long rows, long k, const T* a, long a_stride, const T* b, long b_stride, Into<T> into) {
  for (; rows >= kFewRows; rows -= kFewRows, a += kFewRows * a_stride, into.c += kFewRows * into.stride)
    dots_of<T, kFewRows, M>(k, a, a_stride, b, b_stride, into);
  if (rows == 2) dots_of<T, 2, M>(k, a, a_stride, b, b_stride, into);
  if (rows == 1) dots_of<T, 1, M>(k, a, a_stride, b, b_stride, into);
}

// C (rows, cols) = or += A (rows, k) B^T, from B (cols, k).
template <class T>
void dots(long rows, long cols, long k, const T* a, long a_stride, const T* b, long b_stride, Into<T> into) {
  constexpr int kAtOnce = 4;
  const auto from = [&](long j) {
    return Into<T>{into.c + j, into.stride, into.bias ? into.bias + j : nullptr, into.add};
  };
  long j = 0;
  for (; j + kAtOnce <= cols; j += kAtOnce)
    dots_of<T, kAtOnce>(rows, k, a, a_stride, b + j * b_stride, b_stride, from(j));
  for (; j < cols; ++j) dots_of<T, 1>(rows, k, a, a_stride, b + j * b_stride, b_stride, from(j));
}

// R rows of C += a number each times M rows of B.
template <class T, int R, int M>
DEEPRNN_INLINE void add_rows_of(long cols, const T* a, long a_stride, const T* b, long b_stride, T* c, long stride) {
  each_pair<T>(cols, [&](auto lanes, long j) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) fetch(b + (M + i) * b_stride + j, kColumns<T>);
    decltype(lanes.load(c)) sums[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sums[r] = lanes.load(c + r * stride + j);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const auto row = lanes.load(b + i * b_stride + j);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r] = sums[r] + a[r * a_stride + i] * row;
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) lanes.store(c + r * stride + j, sums[r]);
  });
}

// R rows of C += A (R, k) B.
template <class T, int R>
void combine_of(long cols, long k, const T* a, long a_stride, const T* b, long b_stride, Into<T> into) {
  constexpr int kAtOnce = 4;
  long p = 0;
  for (; p + kAtOnce <= k; p += kAtOnce)
    add_rows_of<T, R, kAtOnce>(cols, a + p, a_stride, b + p * b_stride, b_stride, into.c, into.stride);
  for (; p < k; ++p) add_rows_of<T, R, 1>(cols, a + p, a_stride, b + p * b_stride, b_stride, into.c, into.stride);
}

// C (rows, cols) = or += A (rows, k) B, from B (k, cols) as it lies: rows of B, times a number each, are added up.
template <class T>
void combine(long rows, long cols, long k, const T* a, long a_stride, const T* b, long b_stride, Into<T> into) {
  for (long r = 0; r < rows && !into.add; ++r)
    std::memset(into.c + r * into.stride, 0, sizeof(T) * static_cast<std::size_t>(cols));
  for (; rows >= kFewRows; rows -= kFewRows, a += kFewRows * a_stride, into.c += kFewRows * into.stride)
    combine_of<T, kFewRows>(cols, k, a, a_stride, b, b_stride, into);
  if (rows == 2) combine_of<T, 2>(cols, k, a, a_stride, b, b_stride, into);
  if (rows == 1) combine_of<T, 1>(cols, k, a, a_stride, b, b_stride, into);
}

}  // namespace DEEPRNN_ISA
}  // namespace deeprnn
