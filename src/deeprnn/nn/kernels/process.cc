#include "process.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "team.h"

namespace deeprnn {
namespace {

// --- memory: one block a thread, as large as its largest call needed

class ThreadWorkspace final : public Workspace {
 public:
  ~ThreadWorkspace() override { reset(0); }

  // All is free again. More than `keep` bytes go back to the system.
  void reset(std::size_t keep) {
    if (extra_.empty() && capacity_ <= keep) {
      used_ = 0;
      return;
    }
    std::size_t wanted = used_ + extra_bytes_;
    for (void* block : extra_) std::free(block);
    extra_.clear();
    extra_bytes_ = used_ = 0;
    std::free(block_);
    block_ = wanted && wanted <= keep ? static_cast<char*>(std::aligned_alloc(kAlign, wanted)) : nullptr;
    capacity_ = block_ ? wanted : 0;
  }

 private:
  static constexpr std::size_t kAlign = 64;

  void* take_bytes(std::size_t bytes) override {
    // One line more than asked for, so that rows of two arrays do not share their place in the cache.
    bytes = (bytes + 2 * kAlign - 1) / kAlign * kAlign;
    if (used_ + bytes <= capacity_) {
      used_ += bytes;
      return block_ + used_ - bytes;
    }
    extra_.push_back(nullptr);  // first, as it may fail
    void* block = extra_.back() = std::aligned_alloc(kAlign, bytes);
    if (!block) throw std::bad_alloc();
    extra_bytes_ += bytes;
    return block;
  }

  char* block_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0, extra_bytes_ = 0;
  std::vector<void*> extra_;
};

constexpr std::size_t kKeptBytes = std::size_t{64} << 20;

thread_local ThreadWorkspace workspace_of_thread;

// --- kernels

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const Kernels* best_kernels() { return has_avx512() ? &kAvx512 : has_avx2() ? &kAvx2 : nullptr; }

const Kernels* chosen = best_kernels();

// Multiply-adds that a thread must have to itself, or it costs more than it brings: a tenth of a millisecond's work.
constexpr double kWorkOfThread = 4e6;

}  // namespace

const Kernels* kernels() { return chosen; }

WorkspaceOfCall::WorkspaceOfCall() : workspace(workspace_of_thread) {}
WorkspaceOfCall::~WorkspaceOfCall() { workspace_of_thread.reset(kKeptBytes); }

Team team_for(double multiply_adds) {
  const double parts = multiply_adds / kWorkOfThread;
  const int useful = static_cast<int>(parts < 1e6 ? parts : 1e6), allowed = threads();
  return team_of(useful < 1 ? 1 : useful < allowed ? useful : allowed);
}

}  // namespace deeprnn

using namespace deeprnn;

// --- for native.py, through ctypes

DEEPRNN_EXPORT const char* deeprnn_instruction_set() { return chosen ? chosen->name : ""; }
DEEPRNN_EXPORT void deeprnn_set_threads(int count) { set_threads(count); }
DEEPRNN_EXPORT int deeprnn_threads() { return threads(); }

// "avx2", "avx512", or "" for the best there is. 0 where this processor has it not.
DEEPRNN_EXPORT int deeprnn_set_instruction_set(const char* name) {
  const Kernels* wanted = !*name                                         ? best_kernels()
                          : !std::strcmp(name, "avx2") && has_avx2()     ? &kAvx2
                          : !std::strcmp(name, "avx512") && has_avx512() ? &kAvx512
                                                                         : nullptr;
  if (!wanted) return 0;
  chosen = wanted;
  return 1;
}
