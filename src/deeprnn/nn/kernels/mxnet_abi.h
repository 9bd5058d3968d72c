// What MXNet looks up by name in a library of operators (MXLoadLib, MXNet 1.9, version 11 of its interface).
//
// MXNet takes pointers to functions from _opRegGet and hands them back, unread, to the functions that call them; so
// their types are this library's own affair.
#pragma once

#include <cstddef>
#include <cstdint>

#include "call.h"

namespace deeprnn {

constexpr int kInterfaceVersion = 11;
constexpr int kOldestMxnet = 10900, kNewestMxnet = 10999;  // major * 10000 + minor * 100 + patch

enum Result { kFail = 0, kSuccess = 1 };
enum Type { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kUint8 = 3, kInt32 = 4, kInt8 = 5, kInt64 = 6 };

using Compute = int (*)();  // its address says which of the two it is, and nothing else is needed

using Malloc = void* (*)(void*, int);
using SparseMalloc = void (*)(void*, int, int, int, void**, int64_t**, int64_t**);

}  // namespace deeprnn

DEEPRNN_EXPORT int _opVersion();
DEEPRNN_EXPORT int initialize(int version);
DEEPRNN_EXPORT int _msgSize();
DEEPRNN_EXPORT void _msgGet(int index, const char** message);
DEEPRNN_EXPORT int _opRegSize();
DEEPRNN_EXPORT void _opRegGet(int index, const char** name, int* is_subgraph, const char*** forward_contexts,
                              deeprnn::Compute** forward, int* forward_count, const char*** backward_contexts,
                              deeprnn::Compute** backward, int* backward_count, const char*** state_contexts,
                              void*** state, int* state_count, void** parse, void** types, void** storage,
                              void** shapes, void** mutate);
DEEPRNN_EXPORT void _opCallFree(void* memory);
DEEPRNN_EXPORT int _opCallParseAttrs(void* parse, const char* const* keys, const char* const* values, int count,
                                     int* num_inputs, int* num_outputs);
DEEPRNN_EXPORT int _opCallInferShape(void* infer, const char* const* keys, const char* const* values, int count,
                                     unsigned** in_shapes, int* in_dims, int num_in, unsigned*** new_in_shapes,
                                     int** new_in_dims, unsigned*** out_shapes, int** out_dims, int num_out);
DEEPRNN_EXPORT int _opCallInferType(void* infer, const char* const* keys, const char* const* values, int count,
                                    int* in_types, int num_in, int* out_types, int num_out);
DEEPRNN_EXPORT int _opCallInferSType(void* infer, const char* const* keys, const char* const* values, int count,
                                     int* in_types, int num_in, int* out_types, int num_out);
DEEPRNN_EXPORT int _opCallFCompute(deeprnn::Compute compute, const char* const* keys, const char* const* values,
                                   int count, const int64_t** in_shapes, int* in_dims, void** in_data, int* in_types,
                                   std::size_t* in_ids, const char** in_devices, int* in_device_ids, int num_in,
                                   const int64_t** out_shapes, int* out_dims, void** out_data, int* out_types,
                                   std::size_t* out_ids, const char** out_devices, int* out_device_ids, int num_out,
                                   deeprnn::Malloc cpu_malloc, void* cpu_alloc, deeprnn::Malloc gpu_malloc,
                                   void* gpu_alloc, void* stream, deeprnn::SparseMalloc sparse_malloc,
                                   void* sparse_alloc, int* in_storage, int* out_storage, void** in_indices,
                                   void** out_indices, void** in_indptr, void** out_indptr, int64_t* in_indices_shapes,
                                   int64_t* out_indices_shapes, int64_t* in_indptr_shapes, int64_t* out_indptr_shapes,
                                   void* random_cpu, void* random_gpu);
// Looked up, never called: the library has none of what they are about.
DEEPRNN_EXPORT int _opCallMutateInputs();
DEEPRNN_EXPORT int _opCallCreateOpState();
DEEPRNN_EXPORT void _opCallDestroyOpState();
DEEPRNN_EXPORT int _opCallFStatefulCompute();
DEEPRNN_EXPORT int _partRegSize();
DEEPRNN_EXPORT int _partRegGetCount();
DEEPRNN_EXPORT void _partRegGet();
DEEPRNN_EXPORT int _partCallSupportedOps();
DEEPRNN_EXPORT int _partCallCreateSelector();
DEEPRNN_EXPORT void _partCallSelect();
DEEPRNN_EXPORT void _partCallSelectInput();
DEEPRNN_EXPORT void _partCallSelectOutput();
DEEPRNN_EXPORT void _partCallFilter();
DEEPRNN_EXPORT void _partCallReset();
DEEPRNN_EXPORT int _partCallReviewSubgraph();
DEEPRNN_EXPORT int _passRegSize();
DEEPRNN_EXPORT void _passRegGet();
DEEPRNN_EXPORT int _passCallGraphPass();
