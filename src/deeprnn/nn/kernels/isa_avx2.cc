// Built with -mavx2 -mfma. 16 registers of 32 bytes: 6 x 2 sums, two of B, one of A.
#define DEEPRNN_ISA avx2
#define DEEPRNN_VECTOR_BYTES 32
#define DEEPRNN_TILE_ROWS 6
#include "isa.h"

namespace deeprnn {
extern const Kernels kAvx2 = avx2::kernels("avx2");
}
