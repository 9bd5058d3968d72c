// Runs the kernels of one instruction set without MXNet, for the sanitizers: all cells, both directions, lengths, a
// projection, a clip, both types, sizes that are no multiple of anything, by one, two and three threads, by two callers
// at once, in a forked child. What comes out is compared with plain loops in double precision, below.
//
//     driver [sizes for each kind of call, 4] [first seed]
//     driver -         the calls that standard input lists, one a line: see check_listed
//
// It runs the table of kernels that it is linked with. Says what differs, with exit code 1.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "call.h"
#include "team.h"

namespace deeprnn {
extern const Kernels kAvx2 __attribute__((weak)), kAvx512 __attribute__((weak));
}
extern "C" void __tsan_init() __attribute__((weak));

using namespace deeprnn;

namespace {

const Kernels& kernels() { return &kAvx2 ? kAvx2 : kAvx512; }

// --- numbers

struct Random {
  std::uint64_t state;
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  long below(long n) { return static_cast<long>(next() % static_cast<std::uint64_t>(n)); }
  double uniform(double size) { return size * (static_cast<double>(next() >> 11) / (1ull << 52) - 1); }
};

template <class T>
std::vector<T> numbers(long count, double size, Random& random) {
  std::vector<T> v(static_cast<std::size_t>(count));
  for (T& x : v) x = static_cast<T>(random.uniform(size));
  return v;
}

// Memory that has not been written yet: reading it makes the result NaN.
template <class T>
std::vector<T> nothing(long count) {
  return std::vector<T>(static_cast<std::size_t>(count), static_cast<T>(std::nan("")));
}

// Each request is a separate allocation of exactly its size: a sanitizer sees any access beyond it.
class ExactWorkspace final : public Workspace {
 public:
  ~ExactWorkspace() override {
    for (void* block : blocks_) std::free(block);
  }

 private:
  void* take_bytes(std::size_t bytes) override {
    void* block = std::malloc(bytes);
    if (!block) std::abort();
    std::memset(block, 0xff, bytes);  // NaNs again
    blocks_.push_back(block);
    return block;
  }

  std::vector<void*> blocks_;
};

// --- the arrays of a call

struct Sizes {
  long steps, batch, inputs, hidden, projection;  // 0: none
};

template <class T>
struct Arrays {
  Options options;
  Sizes sizes;
  bool save;
  std::vector<T> x, i2h_weight, i2h_bias, h2h_weight, h2h_bias, h2r_weight, first_hidden, first_cell;
  std::vector<long> lengths;
  std::vector<T> of_outputs, of_last_hidden, of_last_cell;
  // Results.
  std::vector<T> outputs, last_hidden, last_cell, saved;
  std::vector<T> of_x, of_i2h_weight, of_i2h_bias, of_h2h_weight, of_h2h_bias, of_h2r_weight, of_first_hidden,
      of_first_cell;

  bool has_cell() const { return options.cell == Cell::kLstm; }
  long state() const { return sizes.projection ? sizes.projection : sizes.hidden; }
  long rows() const { return gates(options.cell) * sizes.hidden; }

  template <class Each>
  void results(Each each) {
    each("outputs", outputs), each("last_hidden", last_hidden), each("last_cell", last_cell);
    if (!save) return;
    each("of_x", of_x), each("of_i2h_weight", of_i2h_weight), each("of_i2h_bias", of_i2h_bias);
    each("of_h2h_weight", of_h2h_weight), each("of_h2h_bias", of_h2h_bias), each("of_h2r_weight", of_h2r_weight);
    each("of_first_hidden", of_first_hidden), each("of_first_cell", of_first_cell);
  }
};

template <class T>
Arrays<T> arrays(const Options& options, const Sizes& sizes, bool save, Random& random) {
  Arrays<T> a;
  a.options = options, a.sizes = sizes, a.save = save;
  const long t = sizes.steps, n = sizes.batch, c = sizes.inputs, h = sizes.hidden, s = a.state(), g = a.rows();
  const double narrow = 1 / std::sqrt(static_cast<double>(h));
  a.x = numbers<T>(t * n * c, 1, random);
  a.i2h_weight = numbers<T>(g * c, 1 / std::sqrt(static_cast<double>(c)), random);
  a.h2h_weight = numbers<T>(g * s, narrow, random);
  a.i2h_bias = numbers<T>(g, 0.5, random), a.h2h_bias = numbers<T>(g, 0.5, random);
  if (sizes.projection) a.h2r_weight = numbers<T>(s * h, narrow, random);
  a.first_hidden = numbers<T>(n * s, 1, random);
  if (a.has_cell()) a.first_cell = numbers<T>(n * h, 1, random);
  if (options.lengths)
    for (long i = 0; i < n; ++i) a.lengths.push_back(random.below(t + 1));
  a.of_outputs = numbers<T>(t * n * s, 1, random), a.of_last_hidden = numbers<T>(n * s, 1, random);
  if (a.has_cell()) a.of_last_cell = numbers<T>(n * h, 1, random);
  return a;
}

// --- by the kernels

template <class T>
struct Entry;
template <>
struct Entry<float> {
  static constexpr auto forward = &Kernels::forward_float;
  static constexpr auto backward = &Kernels::backward_float;
  static constexpr auto network = &Kernels::network_float;
};
template <>
struct Entry<double> {
  static constexpr auto forward = &Kernels::forward_double;
  static constexpr auto backward = &Kernels::backward_double;
  static constexpr auto network = &Kernels::network_double;
};

template <class T>
T* of(std::vector<T>& v) {
  return v.empty() ? nullptr : v.data();
}

template <class T>
void by_kernels(Arrays<T>& a, int threads) {
  const long t = a.sizes.steps, n = a.sizes.batch, h = a.sizes.hidden, s = a.state();
  a.outputs = nothing<T>(t * n * s), a.last_hidden = nothing<T>(n * s);
  if (a.has_cell()) a.last_cell = nothing<T>(n * h);
  a.saved = nothing<T>(a.save ? t * n * saved_size(a.options.cell, h) : 0);
  Call<T> call = {};
  call.options = a.options, call.steps = t, call.batch = n, call.inputs = a.sizes.inputs, call.hidden = h,
  call.state = s;
  call.x = of(a.x), call.i2h_weight = of(a.i2h_weight), call.i2h_bias = of(a.i2h_bias);
  call.h2h_weight = of(a.h2h_weight), call.h2h_bias = of(a.h2h_bias), call.h2r_weight = of(a.h2r_weight);
  call.first_hidden = of(a.first_hidden), call.first_cell = of(a.first_cell), call.lengths = of(a.lengths);
  call.outputs = of(a.outputs), call.last_hidden = of(a.last_hidden), call.last_cell = of(a.last_cell);
  call.saved = of(a.saved);
  {
    ExactWorkspace workspace;
    (kernels().*Entry<T>::forward)(call, team_of(threads), workspace);
  }
  if (!a.save) return;
  const auto like = [](const std::vector<T>& v) { return nothing<T>(static_cast<long>(v.size())); };
  a.of_x = like(a.x), a.of_i2h_weight = like(a.i2h_weight), a.of_i2h_bias = like(a.i2h_bias);
  a.of_h2h_weight = like(a.h2h_weight), a.of_h2h_bias = like(a.h2h_bias), a.of_h2r_weight = like(a.h2r_weight);
  a.of_first_hidden = like(a.first_hidden), a.of_first_cell = like(a.first_cell);
  Gradients<T> to = {};
  to.outputs = of(a.of_outputs), to.last_hidden = of(a.of_last_hidden), to.last_cell = of(a.of_last_cell);
  to.x = of(a.of_x), to.i2h_weight = of(a.of_i2h_weight), to.i2h_bias = of(a.of_i2h_bias);
  to.h2h_weight = of(a.of_h2h_weight), to.h2h_bias = of(a.of_h2h_bias), to.h2r_weight = of(a.of_h2r_weight);
  to.first_hidden = of(a.of_first_hidden), to.first_cell = of(a.of_first_cell);
  ExactWorkspace workspace;
  (kernels().*Entry<T>::backward)(call, to, team_of(threads), workspace);
}

// --- by plain loops: one sequence at a time, one number at a time, in double precision

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <class T>
void by_loops(Arrays<T>& a) {
  const long T_ = a.sizes.steps, N = a.sizes.batch, C = a.sizes.inputs, H = a.sizes.hidden, S = a.state(), G = a.rows();
  const Cell cell = a.options.cell;
  using Numbers = std::vector<double>;
  const auto zeros = [](long count) { return Numbers(static_cast<std::size_t>(count)); };
  Numbers outputs = zeros(T_ * N * S), last_hidden = zeros(N * S), last_cell = zeros(a.has_cell() ? N * H : 0);
  Numbers of_x = zeros(T_ * N * C), of_i2h_weight = zeros(G * C), of_i2h_bias = zeros(G), of_h2h_weight = zeros(G * S);
  Numbers of_h2h_bias = zeros(G), of_h2r_weight = zeros(a.sizes.projection ? S * H : 0), of_first_hidden = zeros(N * S);
  Numbers of_first_cell = zeros(a.has_cell() ? N * H : 0);

  struct Step {
    long t;
    Numbers before, cell_before, in, rec, gate, unclipped, cell, unprojected, after;
  };
  for (long n = 0; n < N; ++n) {
    const long length = a.options.lengths ? a.lengths[static_cast<std::size_t>(n)] : T_;
    std::vector<Step> steps;
    Numbers h(a.first_hidden.begin() + n * S, a.first_hidden.begin() + (n + 1) * S), c;
    if (a.has_cell()) c.assign(a.first_cell.begin() + n * H, a.first_cell.begin() + (n + 1) * H);
    for (long k = 0; k < length; ++k) {
      Step step;
      step.t = a.options.reverse ? length - 1 - k : k;
      step.before = h, step.cell_before = c;
      step.in = zeros(G), step.rec = zeros(G), step.gate = zeros(G), step.unclipped = zeros(H),
      step.unprojected = zeros(H);
      for (long g = 0; g < G; ++g) {
        step.in[g] = a.i2h_bias[g], step.rec[g] = a.h2h_bias[g];
        for (long i = 0; i < C; ++i) step.in[g] += double(a.i2h_weight[g * C + i]) * a.x[(step.t * N + n) * C + i];
        for (long i = 0; i < S; ++i) step.rec[g] += double(a.h2h_weight[g * S + i]) * h[i];
      }
      for (long j = 0; j < H; ++j) {
        const auto sum = [&](long gate) { return step.in[gate * H + j] + step.rec[gate * H + j]; };
        double* gate = step.gate.data() + j;
        switch (cell) {
          case Cell::kTanh: step.unprojected[j] = std::tanh(sum(0)); break;
          case Cell::kRelu: step.unprojected[j] = sum(0) > 0 ? sum(0) : 0; break;
          case Cell::kGru:
            gate[0] = sigmoid(sum(0)), gate[H] = sigmoid(sum(1));
            gate[2 * H] = std::tanh(step.in[2 * H + j] + gate[0] * step.rec[2 * H + j]);
            step.unprojected[j] = (1 - gate[H]) * gate[2 * H] + gate[H] * h[j];
            break;
          case Cell::kLstm:
            gate[0] = sigmoid(sum(0)), gate[H] = sigmoid(sum(1)), gate[2 * H] = std::tanh(sum(2));
            gate[3 * H] = sigmoid(sum(3));
            step.unclipped[j] = gate[H] * c[j] + gate[0] * gate[2 * H];
            c[j] = step.unclipped[j];
            if (a.options.clip) c[j] = std::fmin(std::fmax(c[j], a.options.clip_min), a.options.clip_max);
            step.unprojected[j] = gate[3 * H] * std::tanh(c[j]);
        }
      }
      step.after = step.unprojected, step.cell = c;
      if (a.sizes.projection) {
        step.after = zeros(S);
        for (long i = 0; i < S; ++i)
          for (long j = 0; j < H; ++j) step.after[i] += double(a.h2r_weight[i * H + j]) * step.unprojected[j];
      }
      h = step.after;
      for (long i = 0; i < S; ++i) outputs[(step.t * N + n) * S + i] = h[i];
      steps.push_back(step);
    }
    for (long i = 0; i < S; ++i) last_hidden[n * S + i] = h[i];
    if (a.has_cell())
      for (long j = 0; j < H; ++j) last_cell[n * H + j] = c[j];
    if (!a.save) continue;

    Numbers of_h(a.of_last_hidden.begin() + n * S, a.of_last_hidden.begin() + (n + 1) * S), of_c = zeros(H);
    if (a.has_cell()) of_c.assign(a.of_last_cell.begin() + n * H, a.of_last_cell.begin() + (n + 1) * H);
    for (std::size_t k = steps.size(); k-- > 0;) {
      const Step& step = steps[k];
      for (long i = 0; i < S; ++i) of_h[i] += a.of_outputs[(step.t * N + n) * S + i];
      Numbers of_out = of_h, of_before = zeros(S), of_in = zeros(G), of_rec = zeros(G);
      if (a.sizes.projection) {
        of_out = zeros(H);
        for (long i = 0; i < S; ++i)
          for (long j = 0; j < H; ++j) {
            of_out[j] += double(a.h2r_weight[i * H + j]) * of_h[i];
            of_h2r_weight[i * H + j] += of_h[i] * step.unprojected[j];
          }
      }
      for (long j = 0; j < H; ++j) {
        const double g = of_out[j], y = step.unprojected[j];
        const double* gate = step.gate.data() + j;
        const auto both = [&](long which, double value) { of_in[which * H + j] = of_rec[which * H + j] = value; };
        switch (cell) {
          case Cell::kTanh: both(0, g * (1 - y * y)); break;
          case Cell::kRelu: both(0, y > 0 ? g : 0); break;
          case Cell::kGru: {
            const double r = gate[0], z = gate[H], m = gate[2 * H], of_m = g * (1 - z) * (1 - m * m);
            both(0, of_m * step.rec[2 * H + j] * r * (1 - r));
            both(1, g * (step.before[j] - m) * z * (1 - z));
            of_in[2 * H + j] = of_m, of_rec[2 * H + j] = of_m * r;
            of_before[j] += g * z;
            break;
          }
          case Cell::kLstm: {
            const double i = gate[0], f = gate[H], m = gate[2 * H], o = gate[3 * H], seen = std::tanh(step.cell[j]);
            of_c[j] += g * o * (1 - seen * seen);
            const bool held = step.unclipped[j] < a.options.clip_min || step.unclipped[j] > a.options.clip_max;
            if (a.options.clip && held) of_c[j] = 0;
            both(0, of_c[j] * m * i * (1 - i));
            both(1, of_c[j] * step.cell_before[j] * f * (1 - f));
            both(2, of_c[j] * i * (1 - m * m));
            both(3, g * seen * o * (1 - o));
            of_c[j] *= f;
          }
        }
      }
      for (long g = 0; g < G; ++g) {
        of_i2h_bias[g] += of_in[g], of_h2h_bias[g] += of_rec[g];
        for (long i = 0; i < C; ++i) {
          of_x[(step.t * N + n) * C + i] += double(a.i2h_weight[g * C + i]) * of_in[g];
          of_i2h_weight[g * C + i] += of_in[g] * a.x[(step.t * N + n) * C + i];
        }
        for (long i = 0; i < S; ++i) {
          of_before[i] += double(a.h2h_weight[g * S + i]) * of_rec[g];
          of_h2h_weight[g * S + i] += of_rec[g] * step.before[i];
        }
      }
      of_h = of_before;
    }
    for (long i = 0; i < S; ++i) of_first_hidden[n * S + i] = of_h[i];
    if (a.has_cell())
      for (long j = 0; j < H; ++j) of_first_cell[n * H + j] = of_c[j];
  }

  const auto give = [](std::vector<T>& to, const Numbers& from) { to.assign(from.begin(), from.end()); };
  give(a.outputs, outputs), give(a.last_hidden, last_hidden), give(a.last_cell, last_cell);
  give(a.of_x, of_x), give(a.of_i2h_weight, of_i2h_weight), give(a.of_i2h_bias, of_i2h_bias);
  give(a.of_h2h_weight, of_h2h_weight), give(a.of_h2h_bias, of_h2h_bias), give(a.of_h2r_weight, of_h2r_weight);
  give(a.of_first_hidden, of_first_hidden), give(a.of_first_cell, of_first_cell);
}

// --- compared

template <class T>
std::string name_of(const Arrays<T>& a) {
  static const char* const kCells[] = {"tanh", "relu", "gru", "lstm"};
  const Options& o = a.options;
  std::string name = sizeof(T) == 4 ? "float " : "double ";
  name += kCells[static_cast<int>(o.cell)];
  name +=
      std::string(a.sizes.projection ? " projection" : "") + (o.clip ? " clip" : "") + (o.reverse ? " reverse" : "");
  name += std::string(o.lengths ? " lengths" : "") + (a.save ? "" : " inference");
  const std::pair<const char*, long> sizes[] = {{" T=", a.sizes.steps},
                                                {" N=", a.sizes.batch},
                                                {" C=", a.sizes.inputs},
                                                {" H=", a.sizes.hidden},
                                                {" S=", a.state()}};
  for (const auto& [key, value] : sizes) name += key + std::to_string(value);
  return name;
}

// Whether all results are those of `expected`: to the last bit, or by norm.
template <class T>
bool agree(Arrays<T>& got, Arrays<T>& expected, bool exactly, const char* what) {
  const double tolerance = exactly ? 0 : sizeof(T) == 4 ? 1e-5 : 1e-12;
  std::vector<std::pair<const char*, std::vector<T>*>> theirs;
  expected.results([&](const char* key, std::vector<T>& v) { theirs.push_back({key, &v}); });
  std::size_t next = 0;
  bool fine = true;
  got.results([&](const char* key, std::vector<T>& v) {
    const std::vector<T>& w = *theirs[next++].second;
    double difference = 0, norm = 0;
    bool same = v.size() == w.size();
    for (std::size_t i = 0; same && i < v.size(); ++i) {
      difference += (double(v[i]) - w[i]) * (double(v[i]) - w[i]), norm += double(w[i]) * w[i];
    }
    if (exactly)
      same = same && (v.empty() || std::memcmp(v.data(), w.data(), v.size() * sizeof(T)) == 0);
    else  // so that a NaN fails
      same = same && std::sqrt(difference) <= tolerance * std::sqrt(norm);
    if (same) return;
    fine = false;
    std::printf("%s: %s differs from %s by %.2g of its norm\n", name_of(got).c_str(), key, what,
                std::sqrt(difference / norm));
  });
  return fine;
}

template <class T>
bool check(const Options& options, const Sizes& sizes, bool save, Random& random) {
  Arrays<T> one = arrays<T>(options, sizes, save, random);
  Arrays<T> loops = one;
  by_loops(loops);
  by_kernels(one, 1);
  bool fine = agree(one, loops, false, "the plain loops");
  for (int threads = 2; threads <= 3; ++threads) {
    Arrays<T> more = one;
    by_kernels(more, threads);
    fine = agree(more, one, true, "one thread's") && fine;
  }
  return fine;
}

// --- which calls

struct Kind {
  Options options;
  bool projected;

  Sizes of(Sizes sizes) const {
    if (!projected) sizes.projection = 0;
    return sizes;
  }
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (int variant = 0; variant < 7; ++variant)
    for (int flags = 0; flags < 4; ++flags) {
      Options o;
      o.cell = variant < 4 ? static_cast<Cell>(variant) : Cell::kLstm;
      o.clip = variant == 5 || variant == 6, o.clip_min = -0.3, o.clip_max = 0.4;
      o.clip_nan = variant == 6;
      o.reverse = flags & 1, o.lengths = flags & 2;
      all.push_back({o, variant == 4 || variant == 6});
    }
  return all;
}

long checked = 0;

bool check_all(long each, std::uint64_t seed) {
  static constexpr long kHidden[] = {1, 2, 7, 15, 17, 31, 33, 65};
  static constexpr long kInputs[] = {1, 3, 8, 16, 19, 40, 65};
  Random random{seed};
  bool fine = true;
  long at = 0;  // every hidden size, batch and number of steps comes, in ever new company
  for (const Kind& kind : kinds())
    for (long i = 0; i < each; ++i, ++at) {
      Sizes sizes = {at % 3 + 1, at % 17 + 1, kInputs[random.below(7)], kHidden[at % 8], 0};
      sizes.projection = 1 + random.below(sizes.hidden + 3);
      sizes = kind.of(sizes);
      const bool save = i % 4 != 3;
      fine = ((at + at / 8) % 2 ? check<float>(kind.options, sizes, save, random)
                                : check<double>(kind.options, sizes, save, random)) &&
             fine;
      ++checked;
    }
  // Longer than a chunk of steps: many sequences, a few, one; and more sequences than a chunk has. Each with half of the
  // kinds: all cells, reversed or not, with lengths or without.
  static constexpr Sizes kLong[] = {{33, 17, 9, 18, 7}, {75, 7, 5, 17, 20}, {530, 1, 6, 5, 3}, {1, 530, 3, 5, 4}};
  for (const Kind& kind : kinds())
    for (long i = 0; i < 4; ++i) {
      const Options& options = kind.options;
      if ((options.reverse ^ options.lengths) == i % 2) continue;
      const Sizes sizes = kind.of(kLong[i]);
      const bool twice = (at++ + options.lengths) % 2;
      fine = (twice ? check<double>(options, sizes, true, random) : check<float>(options, sizes, true, random)) && fine;
      ++checked;
    }
  // Deeper than a block of a product: in inputs, in the hidden state, in gates, in a projection.
  for (int cell = 0; cell < 5; ++cell) {
    Options options;
    options.cell = static_cast<Cell>(cell < 4 ? cell : 3);
    const Sizes sizes = cell < 2 ? Sizes{2, 6, 530, 520, 0} : Sizes{2, 5, 515, 140, cell < 4 ? 0 : 530};
    fine = check<float>(options, sizes, true, random) && fine;
    ++checked;
  }
  return fine;
}

// A NaN and infinities in the cell state, with a clip: that of `clip_nan` is held at the lower bound, and takes no
// gradient; any other goes through.
bool check_clip() {
  bool fine = true;
  for (const bool clip_nan : {false, true}) {
    Options options;
    options.cell = Cell::kLstm, options.clip = true, options.clip_min = -2, options.clip_max = 1,
    options.clip_nan = clip_nan;
    Random random{1};
    Arrays<float> a = arrays<float>(options, {1, 5, 3, 19, 0}, true, random);
    a.first_cell[18] = std::nanf(""), a.first_cell[19] = INFINITY, a.first_cell[20] = -INFINITY;
    by_kernels(a, 2);
    fine = fine && (clip_nan ? a.last_cell[18] == -2 : std::isnan(a.last_cell[18]));
    fine = fine && a.last_cell[19] == 1 && a.last_cell[20] == -2;
    fine = fine && (clip_nan ? a.of_first_cell[18] == 0 : std::isnan(a.of_first_cell[18]));
    fine = fine && a.of_first_cell[19] == 0 && a.of_first_cell[20] == 0;
  }
  if (!fine) std::printf("the clip does not treat a NaN or an infinity as it should\n");
  return fine;
}

// A language model: its layers are those of `by_loops`, what is before and behind them is here.
template <class T>
struct LanguageModel {
  NetworkSizes sizes;
  std::vector<T> embedding, weight, bias;
  std::vector<Arrays<T>> layers;

  LanguageModel(const NetworkSizes& of, Random& random) : sizes(of) {
    const long width = of.embedding ? of.embedding : of.symbols;
    embedding = numbers<T>(of.symbols * of.embedding, 1, random);
    weight = numbers<T>(of.symbols * of.hidden, 1, random), bias = numbers<T>(of.symbols, 1, random);
    Options options;
    options.cell = of.cell;
    for (long l = 0; l < of.layers; ++l)
      layers.push_back(arrays<T>(options, {1, 1, l ? of.hidden : width, of.hidden, 0}, false, random));
  }

  std::unique_ptr<Network<T>> packed() const {
    std::vector<const T*> weights;
    if (sizes.embedding) weights.push_back(embedding.data());
    for (const Arrays<T>& a : layers)
      for (const std::vector<T>* v : {&a.i2h_weight, &a.h2h_weight, &a.i2h_bias, &a.h2h_bias})
        weights.push_back(v->data());
    weights.push_back(weight.data()), weights.push_back(bias.data());
    return (kernels().*Entry<T>::network)(sizes, weights.data());
  }

  // Logits by plain loops, from first states (L, N, H), which become the last ones.
  std::vector<T> by_plain_loops(long steps, long batch, const std::vector<std::int64_t>& ids, std::vector<T>* hidden,
                                std::vector<T>* cell) {
    const long E = sizes.embedding, H = sizes.hidden, V = sizes.symbols, rows = steps * batch;
    std::vector<T> x(static_cast<std::size_t>(rows * (E ? E : V)));
    for (long i = 0; i < rows; ++i)
      for (long j = 0; j < (E ? E : V); ++j)
        x[i * (E ? E : V) + j] = E ? static_cast<T>(sizes.scale) * embedding[ids[i] * E + j] : T(ids[i] == j);
    for (long l = 0; l < sizes.layers; ++l) {
      Arrays<T>& a = layers[l];
      a.sizes.steps = steps, a.sizes.batch = batch, a.x = x;
      const auto part = [&](std::vector<T>& all) { return all.begin() + l * batch * H; };
      a.first_hidden.assign(part(*hidden), part(*hidden) + batch * H);
      if (a.has_cell()) a.first_cell.assign(part(*cell), part(*cell) + batch * H);
      a.of_outputs.assign(static_cast<std::size_t>(rows * H), 0);
      by_loops(a);
      std::copy(a.last_hidden.begin(), a.last_hidden.end(), part(*hidden));
      if (a.has_cell()) std::copy(a.last_cell.begin(), a.last_cell.end(), part(*cell));
      for (long i = 0; i < rows * H && sizes.residual && l > 0; ++i) a.outputs[i] += x[i];
      x = a.outputs;
    }
    std::vector<T> logits(static_cast<std::size_t>(rows * V));
    for (long i = 0; i < rows; ++i)
      for (long v = 0; v < V; ++v) {
        double sum = bias[v];
        for (long j = 0; j < H; ++j) sum += double(weight[v * H + j]) * x[i * H + j];
        logits[i * V + v] = static_cast<T>(sum);
      }
    return logits;
  }
};

template <class T>
bool close(const std::vector<T>& got, const std::vector<T>& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    difference += std::pow(double(got[i]) - expected[i], 2), norm += std::pow(double(expected[i]), 2);
  return std::sqrt(difference) <= (sizeof(T) == 4 ? 1e-5 : 1e-12) * std::sqrt(norm);
}

// One call of all steps for all sequences, and one for each step of each sequence, which give the same bits.
template <class T>
bool check_network(const NetworkSizes& sizes, long steps, long batch, int threads, Random& random) {
  LanguageModel<T> model(sizes, random);
  const std::unique_ptr<Network<T>> network = model.packed();
  const long L = sizes.layers, H = sizes.hidden, V = sizes.symbols;
  std::vector<std::int64_t> ids;
  for (long i = 0; i < steps * batch; ++i) ids.push_back(random.below(V));
  const std::vector<T> hidden = numbers<T>(L * batch * H, 1, random), cell = numbers<T>(L * batch * H, 1, random);
  const auto run = [&](long t, long n, const std::int64_t* of, const std::vector<T>& h, const std::vector<T>& c,
                       std::vector<T>* last_h, std::vector<T>* last_c) {
    std::vector<T> logits = nothing<T>(t * n * V);
    *last_h = nothing<T>(L * n * H), *last_c = nothing<T>(L * n * H);
    ExactWorkspace workspace;
    network->run({t, n, of, h.data(), c.data(), last_h->data(), last_c->data(), logits.data()}, team_of(threads),
                 workspace);
    return logits;
  };
  std::vector<T> last_hidden, last_cell, loops_hidden = hidden, loops_cell = cell;
  const std::vector<T> logits = run(steps, batch, ids.data(), hidden, cell, &last_hidden, &last_cell);
  const std::vector<T> expected = model.by_plain_loops(steps, batch, ids, &loops_hidden, &loops_cell);
  bool fine = close(logits, expected) && close(last_hidden, loops_hidden);
  if (sizes.cell == Cell::kLstm) fine = fine && close(last_cell, loops_cell);
  for (long n = 0; n < batch; ++n) {
    std::vector<T> h, c, next_h, next_c;
    for (long l = 0; l < L; ++l)
      for (long j = 0; j < H; ++j)
        h.push_back(hidden[(l * batch + n) * H + j]), c.push_back(cell[(l * batch + n) * H + j]);
    for (long t = 0; t < steps; ++t) {
      const std::vector<T> one = run(1, 1, &ids[t * batch + n], h, c, &next_h, &next_c);
      fine = fine && std::memcmp(one.data(), &logits[(t * batch + n) * V], one.size() * sizeof(T)) == 0;
      h = next_h, c = next_c;
    }
  }
  if (!fine)
    std::printf("network of cell %d, V=%ld E=%ld H=%ld L=%ld T=%ld N=%ld: wrong\n", static_cast<int>(sizes.cell), V,
                sizes.embedding, H, L, steps, batch);
  return fine;
}

bool check_networks() {
  static constexpr long kBatches[] = {1, 2, 3, 4, 7, 13};
  Random random{5};
  bool fine = true;
  long at = 0;
  for (int cell = 0; cell < 4; ++cell)
    for (const long batch : kBatches) {
      const long hidden = 5 + random.below(70);
      NetworkSizes sizes = {static_cast<Cell>(cell), at % 2 == 0, 3 + random.below(40), 0, hidden, 1 + at % 3, 1};
      if (at % 4) sizes.embedding = 1 + random.below(30), sizes.scale = 2.5;
      const int threads = static_cast<int>(at % 3) + 1;
      fine = (at % 2 ? check_network<float>(sizes, at % 5 + 1, batch, threads, random)
                     : check_network<double>(sizes, at % 5 + 1, batch, threads, random)) &&
             fine;
      ++at, ++checked;
    }
  return fine;
}

// Two callers share the helpers, or one of them does without.
bool check_callers() {
  bool fine[2] = {true, true};
  const auto caller = [&](int which) {
    Random random{static_cast<std::uint64_t>(which) + 7};
    for (const Kind& kind : kinds())
      fine[which] = check<float>(kind.options, kind.of({5, 13, 6, 18, 5}), true, random) && fine[which];
  };
  std::thread other(caller, 1);
  caller(0);
  other.join();
  return fine[0] && fine[1];
}

// A forked child has none of the helpers that its parent has, and gets its own.
bool check_fork() {
  if (__tsan_init) return true;  // the thread sanitizer does not allow it
  const auto small = [] {
    Random random{3};
    return check<double>({}, {4, 12, 3, 9, 0}, true, random);
  };
  bool fine = small();
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const bool same = small();
    std::fflush(stdout);
    _exit(same ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  if (status != 0) std::printf("a forked child ended with status %d\n", status);
  return small() && fine && status == 0;
}

// A line is a call: "float" or "double", the cell's number, T N C H, S or 0, then four times 0 or 1 (clip, reverse,
// lengths, save), the bounds of the clip, and a seed for the numbers.
bool check_listed() {
  char type[8];
  int cell, flags[4];
  Sizes sizes;
  Options options;
  unsigned long long seed;
  bool fine = true;
  int read;
  while ((read = std::scanf("%7s %d %ld %ld %ld %ld %ld %d %d %d %d %lf %lf %llu", type, &cell, &sizes.steps,
                            &sizes.batch, &sizes.inputs, &sizes.hidden, &sizes.projection, &flags[0], &flags[1],
                            &flags[2], &flags[3], &options.clip_min, &options.clip_max, &seed)) == 14) {
    options.cell = static_cast<Cell>(cell);
    options.clip = flags[0], options.reverse = flags[1], options.lengths = flags[2];
    Random random{seed};
    fine = (std::strcmp(type, "float") ? check<double>(options, sizes, flags[3], random)
                                       : check<float>(options, sizes, flags[3], random)) &&
           fine;
    ++checked;
  }
  return fine && read == EOF && checked;
}

int end(bool fine) {
  std::printf("%s: %ld calls, %s\n", kernels().name, checked, fine ? "all as they should be" : "NOT all right");
  return fine ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && !std::strcmp(argv[1], "-")) return end(check_listed());
  const long each = argc > 1 ? std::atol(argv[1]) : 4;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  bool fine = check_all(each, seed);
  fine = check_clip() && fine;
  fine = check_networks() && fine;
  fine = check_callers() && fine;
  fine = check_fork() && fine;
  return end(fine);
}
