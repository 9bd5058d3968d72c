// What a process has once: the kernels for its processor, memory that a thread keeps, threads where they help.
#pragma once

#include "call.h"

namespace deeprnn {

const Kernels* kernels();  // null where this processor has neither AVX2 with FMA nor AVX-512

// The threads for a call of so many multiply-adds.
Team team_for(double multiply_adds);

// The memory that this thread keeps, for the time of a call.
class WorkspaceOfCall {
 public:
  WorkspaceOfCall();
  ~WorkspaceOfCall();
  Workspace& workspace;
};

}  // namespace deeprnn
