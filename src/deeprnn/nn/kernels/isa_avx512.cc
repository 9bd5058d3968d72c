// Built with -mavx512f -mavx512dq -mavx512vl. 32 registers of 64 bytes: 12 x 2 sums, two of B, one of A.
#define DEEPRNN_ISA avx512
#define DEEPRNN_VECTOR_BYTES 64
#define DEEPRNN_TILE_ROWS 12
#include "isa.h"

namespace deeprnn {
extern const Kernels kAvx512 = avx512::kernels("avx512");
}
