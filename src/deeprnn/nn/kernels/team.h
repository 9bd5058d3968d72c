// Threads that share out the parts of a call.
#pragma once

#include "call.h"

namespace deeprnn {

// How many threads a call may take: what was set, else OMP_NUM_THREADS, else the cores that this process may use.
int threads();
void set_threads(int count);  // 0: as at first

// A team of so many threads, the caller among them.
Team team_of(int threads);

}  // namespace deeprnn
