// The operator `deeprnn_recurrence` for MXNet: one layer in one direction, for all steps.
//
//   inputs    x (T, N, C), i2h_weight (G, C), h2h_weight (G, S), i2h_bias (G,), h2h_bias (G,),
//             [h2r_weight (P, H) with projection_size], first hidden state (N, S), [first cell state (N, H) for an LSTM],
//             [lengths (N,) with lengths=1]
//   outputs   outputs (T, N, S), last hidden state (N, S), [last cell state (N, H)], [with save=1 what the gradient
//             needs: (T, N, 4H) for a GRU, (T, N, 5H) for an LSTM]
//
// with the attributes cell (tanh, relu, gru, lstm), hidden_size, projection_size, reverse, lengths, save, clip_min,
// clip_max, clip_nan. A backward pass is handed the gradients of all outputs, all inputs and all outputs.
//
// Everything that MXNet asks of an operator is in this one file, so that no other knows of MXNet: attributes, memory,
// shapes, types, calls. That makes it long.

#include <locale.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "call.h"
#include "mxnet_abi.h"
#include "process.h"

#ifndef DEEPRNN_VERSION
#define DEEPRNN_VERSION "unknown"
#endif

namespace deeprnn {
namespace {

// --- errors, which MXNet raises in Python

thread_local std::string message;  // MXNet reads it after a failed call, in the thread that made it

int fail(const std::string& text) {
  message = "deeprnn_recurrence: " + text;
  return kFail;
}

// --- attributes

struct Attributes {
  Options options;
  long hidden = 0, projection = 0;
  bool save = false;

  long state() const { return projection ? projection : hidden; }
  long gate_rows() const { return gates(options.cell) * hidden; }
  bool has_cell() const { return options.cell == Cell::kLstm; }
  int num_inputs() const { return 6 + (projection > 0) + has_cell() + options.lengths; }
  int num_outputs() const { return 2 + has_cell() + saves(); }
  bool saves() const { return save && saved_size(options.cell, 1) > 0; }
};

// The decimal point is a point, whatever language the process has been set to.
double number(const std::string& text) {
  static const locale_t classic = newlocale(LC_ALL_MASK, "C", nullptr);
  return strtod_l(text.c_str(), nullptr, classic);
}

bool parse(const char* const* keys, const char* const* values, int count, Attributes* to) {
  bool has_cell = false;
  for (int i = 0; i < count; ++i) {
    const std::string key = keys[i], value = values[i];
    const bool on = value == "1" || value == "True";
    if (key == "cell") {
      if (!cell_of(value.c_str(), &to->options.cell)) return false;
      has_cell = true;
    } else if (key == "hidden_size") {
      to->hidden = std::atol(value.c_str());
    } else if (key == "projection_size") {
      to->projection = std::atol(value.c_str());
    } else if (key == "reverse") {
      to->options.reverse = on;
    } else if (key == "lengths") {
      to->options.lengths = on;
    } else if (key == "save") {
      to->save = on;
    } else if (key == "clip_min") {
      to->options.clip = true;
      to->options.clip_min = number(value);
    } else if (key == "clip_max") {
      to->options.clip_max = number(value);
    } else if (key == "clip_nan") {
      to->options.clip_nan = on;
    }  // and what MXNet adds, such as __init__
  }
  return has_cell && to->hidden > 0;
}

// --- one call

struct Arrays {
  void** data;
  int next = 0;
  template <class T>
  T* take() {
    return static_cast<T*>(data[next++]);
  }
};

template <class T>
Call<T> inputs_of(const Attributes& attributes, const int64_t* x_shape, Arrays* from) {
  Call<T> call = {};
  call.options = attributes.options;
  call.steps = x_shape[0], call.batch = x_shape[1], call.inputs = x_shape[2];
  call.hidden = attributes.hidden, call.state = attributes.state();
  call.x = from->take<T>();
  call.i2h_weight = from->take<T>();
  call.h2h_weight = from->take<T>();
  call.i2h_bias = from->take<T>();
  call.h2h_bias = from->take<T>();
  if (attributes.projection) call.h2r_weight = from->take<T>();
  call.first_hidden = from->take<T>();
  if (attributes.has_cell()) call.first_cell = from->take<T>();
  return call;
}

template <class T>
void outputs_of(const Attributes& attributes, Arrays* from, Call<T>* call) {
  call->outputs = from->take<T>();
  call->last_hidden = from->take<T>();
  if (attributes.has_cell()) call->last_cell = from->take<T>();
  if (attributes.saves()) call->saved = from->take<T>();
}

// The lengths as whole numbers between 0 and T, whatever their type.
bool read_lengths(const void* data, int type, long batch, long steps, Workspace& workspace, const long** to) {
  long* lengths = workspace.take<long>(batch);
  for (long n = 0; n < batch; ++n) {
    double length;
    switch (type) {
      case kFloat32: length = static_cast<const float*>(data)[n]; break;
      case kFloat64: length = static_cast<const double*>(data)[n]; break;
      case kInt32: length = static_cast<const int32_t*>(data)[n]; break;
      case kInt64: length = static_cast<double>(static_cast<const int64_t*>(data)[n]); break;
      case kInt8: length = static_cast<const int8_t*>(data)[n]; break;
      case kUint8: length = static_cast<const uint8_t*>(data)[n]; break;
      default: return false;
    }
    lengths[n] = length >= static_cast<double>(steps) ? steps : length > 0 ? static_cast<long>(length) : 0;
  }
  *to = lengths;
  return true;
}

template <class T>
double multiply_adds(const Call<T>& call) {
  return static_cast<double>(call.steps) * call.batch * gates(call.options.cell) * call.hidden *
         (call.inputs + call.state);
}

template <class T>
int run_forward(const Attributes& attributes, const int64_t** in_shapes, void** in, const int* in_types, int num_in,
                void** out, void (*kernel)(const Call<T>&, const Team&, Workspace&)) {
  WorkspaceOfCall here;
  Arrays inputs{in}, outputs{out};
  Call<T> call = inputs_of<T>(attributes, in_shapes[0], &inputs);
  outputs_of<T>(attributes, &outputs, &call);
  if (call.options.lengths &&
      !read_lengths(in[num_in - 1], in_types[num_in - 1], call.batch, call.steps, here.workspace, &call.lengths))
    return fail("lengths must be float32, float64 or whole numbers");
  kernel(call, team_for(multiply_adds(call)), here.workspace);
  return kSuccess;
}

template <class T>
int run_backward(const Attributes& attributes, const int64_t** in_shapes, void** in, const int* in_types, void** out,
                 const int64_t** out_shapes,
                 void (*kernel)(const Call<T>&, const Gradients<T>&, const Team&, Workspace&)) {
  if (!attributes.save && saved_size(attributes.options.cell, 1) > 0) return fail("needs save=1 for its gradient");
  WorkspaceOfCall here;
  const int num_inputs = attributes.num_inputs(), num_outputs = attributes.num_outputs();
  Arrays arrays{in};
  Gradients<T> of = {};
  of.outputs = arrays.take<T>();
  of.last_hidden = arrays.take<T>();
  if (attributes.has_cell()) of.last_cell = arrays.take<T>();
  arrays.next = num_outputs;  // past that of what was saved, which nobody uses
  Call<T> call = inputs_of<T>(attributes, in_shapes[num_outputs], &arrays);
  const int lengths = num_outputs + num_inputs - 1;
  if (call.options.lengths &&
      !read_lengths(in[lengths], in_types[lengths], call.batch, call.steps, here.workspace, &call.lengths))
    return fail("lengths must be float32, float64 or whole numbers");
  arrays.next = num_outputs + num_inputs;
  outputs_of<T>(attributes, &arrays, &call);
  Arrays results{out};
  of.x = results.take<T>();
  of.i2h_weight = results.take<T>();
  of.h2h_weight = results.take<T>();
  of.i2h_bias = results.take<T>();
  of.h2h_bias = results.take<T>();
  if (attributes.projection) of.h2r_weight = results.take<T>();
  of.first_hidden = results.take<T>();
  if (attributes.has_cell()) of.first_cell = results.take<T>();
  if (call.options.lengths) {
    // Nothing depends on the lengths smoothly; their gradient has their type, whose zero is all bits zero.
    static const int kBytes[] = {4, 8, 2, 1, 4, 1, 8};
    std::memset(out[num_inputs - 1], 0,
                static_cast<std::size_t>(kBytes[in_types[lengths]]) * out_shapes[num_inputs - 1][0]);
  }
  kernel(call, of, team_for(2 * multiply_adds(call)), here.workspace);  // by the inputs, and by the weights
  return kSuccess;
}

int is_forward() { return 1; }
int is_backward() { return 0; }

// --- shapes

using Shape = std::vector<unsigned>;

bool known(unsigned size) { return size != 0 && size != static_cast<unsigned>(-1); }  // -1 with np_shape

// What is known of one shape, completed by what it has to be.
bool complete(Shape* shape, const Shape& expected) {
  if (!shape->empty() && shape->size() != expected.size()) return false;
  for (std::size_t i = 0; i < shape->size(); ++i)
    if (known((*shape)[i]) && known(expected[i]) && (*shape)[i] != expected[i]) return false;
  Shape merged = expected;
  for (std::size_t i = 0; i < shape->size(); ++i)
    if (!known(merged[i])) merged[i] = (*shape)[i];
  *shape = merged;
  return true;
}

std::string text(const Shape& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i) out += ", ";
    out += known(shape[i]) ? std::to_string(shape[i]) : "?";
  }
  return out + ")";
}

unsigned* copied(const Shape& shape) {
  unsigned* memory = static_cast<unsigned*>(std::malloc(sizeof(unsigned) * (shape.size() + 1)));
  std::memcpy(memory, shape.data(), sizeof(unsigned) * shape.size());
  return memory;
}

void hand_over(const std::vector<Shape>& shapes, unsigned*** to, int** dims) {
  *to = static_cast<unsigned**>(std::malloc(sizeof(unsigned*) * (shapes.size() + 1)));
  *dims = static_cast<int*>(std::malloc(sizeof(int) * (shapes.size() + 1)));
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    (*to)[i] = copied(shapes[i]);
    (*dims)[i] = static_cast<int>(shapes[i].size());
  }
}

}  // namespace
}  // namespace deeprnn

using namespace deeprnn;

int _opVersion() { return kInterfaceVersion; }
int initialize(int version) { return version >= kOldestMxnet && version <= kNewestMxnet ? kSuccess : kFail; }
int _msgSize() { return message.empty() ? 0 : 1; }
void _msgGet(int, const char** to) { *to = message.c_str(); }
int _opRegSize() { return 1; }

void _opRegGet(int, const char** name, int* is_subgraph, const char*** forward_contexts, Compute** forward,
               int* forward_count, const char*** backward_contexts, Compute** backward, int* backward_count,
               const char*** state_contexts, void*** state, int* state_count, void** parse, void** types,
               void** storage, void** shapes, void** mutate) {
  static const char* cpu[] = {"cpu"};
  static Compute forward_of[] = {is_forward}, backward_of[] = {is_backward};
  static char here;  // MXNet asks of these only whether they are null
  *name = "deeprnn_recurrence";
  *is_subgraph = 0;
  *forward_contexts = *backward_contexts = cpu;
  *forward = forward_of, *backward = backward_of;
  *forward_count = *backward_count = 1;
  *state_contexts = nullptr, *state = nullptr, *state_count = 0;
  *parse = *types = *storage = *shapes = &here;
  *mutate = nullptr;
}

void _opCallFree(void* memory) { std::free(memory); }

int _opCallParseAttrs(void*, const char* const* keys, const char* const* values, int count, int* num_inputs,
                      int* num_outputs) {
  Attributes attributes;
  if (!parse(keys, values, count, &attributes)) return fail("needs cell and hidden_size");
  *num_inputs = attributes.num_inputs();
  *num_outputs = attributes.num_outputs();
  return kSuccess;
}

int _opCallInferShape(void*, const char* const* keys, const char* const* values, int count, unsigned** in_shapes,
                      int* in_dims, int num_in, unsigned*** new_in_shapes, int** new_in_dims, unsigned*** out_shapes,
                      int** out_dims, int) {
  Attributes attributes;
  if (!parse(keys, values, count, &attributes)) return fail("needs cell and hidden_size");
  std::vector<Shape> in;
  for (int i = 0; i < num_in; ++i) {
    in.emplace_back();
    for (int j = 0; j < in_dims[i]; ++j) in.back().push_back(known(in_shapes[i][j]) ? in_shapes[i][j] : 0);
  }
  const auto size = [](long x) { return static_cast<unsigned>(x); };
  const unsigned rows = size(attributes.gate_rows()), hidden = size(attributes.hidden), s = size(attributes.state());
  if (in[0].size() != 3 || !known(in[0][0]) || !known(in[0][1]) || !known(in[0][2]))
    return fail("the inputs must have three known sizes, (T, N, C), got " + text(in[0]));
  const unsigned steps = in[0][0], batch = in[0][1];
  std::vector<Shape> expected = {in[0], {rows, in[0][2]}, {rows, s}, {rows}, {rows}};
  std::vector<const char*> names = {"inputs", "i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias"};
  const auto expect = [&](const char* name, const Shape& shape) {
    names.push_back(name);
    expected.push_back(shape);
  };
  if (attributes.projection) expect("h2r_weight", {s, hidden});
  expect("the hidden state", {batch, s});
  if (attributes.has_cell()) expect("the cell state", {batch, hidden});
  if (attributes.options.lengths) expect("sequence_length", {batch});
  for (int i = 0; i < num_in; ++i) {
    const Shape came = in[i];
    if (!complete(&in[i], expected[i]))
      return fail(std::string(names[i]) + " must have shape " + text(expected[i]) + ", got " + text(came));
  }
  std::vector<Shape> out = {{steps, batch, s}, {batch, s}};
  if (attributes.has_cell()) out.push_back({batch, hidden});
  if (attributes.saves()) out.push_back({steps, batch, size(saved_size(attributes.options.cell, attributes.hidden))});
  hand_over(in, new_in_shapes, new_in_dims);
  hand_over(out, out_shapes, out_dims);
  return kSuccess;
}

int _opCallInferType(void*, const char* const* keys, const char* const* values, int count, int* in_types, int num_in,
                     int* out_types, int num_out) {
  Attributes attributes;
  if (!parse(keys, values, count, &attributes)) return fail("needs cell and hidden_size");
  const int of_one_type = num_in - attributes.options.lengths;
  int type = -1;
  for (int i = 0; i < of_one_type && type < 0; ++i) type = in_types[i];
  if (type < 0) type = kFloat32;
  if (type != kFloat32 && type != kFloat64) return fail("the inputs must be float32 or float64");
  for (int i = 0; i < of_one_type; ++i) {
    if (in_types[i] >= 0 && in_types[i] != type) return fail("inputs, parameters and states must be of one type");
    in_types[i] = type;
  }
  if (attributes.options.lengths && in_types[num_in - 1] < 0) in_types[num_in - 1] = type;
  for (int i = 0; i < num_out; ++i) out_types[i] = type;
  return kSuccess;
}

int _opCallInferSType(void*, const char* const*, const char* const*, int, int* in_types, int num_in, int* out_types,
                      int num_out) {
  for (int i = 0; i < num_in; ++i) in_types[i] = 0;  // dense
  for (int i = 0; i < num_out; ++i) out_types[i] = 0;
  return kSuccess;
}

int _opCallFCompute(Compute compute, const char* const* keys, const char* const* values, int count,
                    const int64_t** in_shapes, int*, void** in_data, int* in_types, std::size_t*, const char**, int*,
                    int num_in, const int64_t** out_shapes, int*, void** out_data, int*, std::size_t*, const char**,
                    int*, int, Malloc, void*, Malloc, void*, void*, SparseMalloc, void*, int*, int*, void**, void**,
                    void**, void**, int64_t*, int64_t*, int64_t*, int64_t*, void*, void*) {
  Attributes attributes;
  if (!parse(keys, values, count, &attributes)) return fail("needs cell and hidden_size");
  if (!kernels()) return fail("this processor has neither AVX2 with FMA nor AVX-512");
  const bool single = in_types[0] == kFloat32;
  try {
    if (compute == is_forward)
      return single ? run_forward<float>(attributes, in_shapes, in_data, in_types, num_in, out_data,
                                         kernels()->forward_float)
                    : run_forward<double>(attributes, in_shapes, in_data, in_types, num_in, out_data,
                                          kernels()->forward_double);
    return single ? run_backward<float>(attributes, in_shapes, in_data, in_types, out_data, out_shapes,
                                        kernels()->backward_float)
                  : run_backward<double>(attributes, in_shapes, in_data, in_types, out_data, out_shapes,
                                         kernels()->backward_double);
  } catch (const std::bad_alloc&) {
    return fail("not enough memory");
  }
}

int _opCallMutateInputs() { return kFail; }
int _opCallCreateOpState() { return kFail; }
void _opCallDestroyOpState() {}
int _opCallFStatefulCompute() { return kFail; }
int _partRegSize() { return 0; }
int _partRegGetCount() { return 0; }
void _partRegGet() {}
int _partCallSupportedOps() { return kFail; }
int _partCallCreateSelector() { return kFail; }
void _partCallSelect() {}
void _partCallSelectInput() {}
void _partCallSelectOutput() {}
void _partCallFilter() {}
void _partCallReset() {}
int _partCallReviewSubgraph() { return kFail; }
int _passRegSize() { return 0; }
void _passRegGet() {}
int _passCallGraphPass() { return kFail; }

// --- for native.py, through ctypes

DEEPRNN_EXPORT const char* deeprnn_version() { return DEEPRNN_VERSION; }
