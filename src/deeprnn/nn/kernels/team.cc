#include "team.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

namespace deeprnn {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

constexpr int kMostParts = 0xffff;  // what a ticket has bits for

// Helpers take parts as they come, and the caller takes whatever is left: one that does not come, because something else
// runs on its core, holds up nobody. (One that is stopped in the middle of a part does.) This is why it is not OpenMP,
// whose threads wait for each other at the end of each loop, and spin while they do.
class Helpers {
 public:
  void run(int count, void (*part)(void*, int), void* context, int threads) {
    std::unique_lock<std::mutex> mine(owner_, std::try_to_lock);
    if (!mine) {  // another call has them
      for (int i = 0; i < count; ++i) part(context, i);
      return;
    }
    try {
      for (; started_ < threads - 1; ++started_) std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {  // no more threads are allowed: the caller takes their parts
    }
    part_ = part, context_ = context;
    finished_.store(0, std::memory_order_relaxed);
    const std::uint64_t call = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    {
      std::lock_guard<std::mutex> lock(sleep_);
      ticket_.store(call << 32 | static_cast<std::uint64_t>(count) << 16);
    }
    if (sleepers_.load() > 0) wake_.notify_all();
    while (take()) {
    }
    for (int spins = 0; finished_.load(std::memory_order_acquire) < count; ++spins) {
      if (spins < 4096)
        pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  // A ticket says which call it is, how many parts that has, and how many are taken. A part is taken by one exchange,
  // so that nobody who comes late can take one of a call that has ended.
  bool take() {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      const int count = static_cast<int>(ticket >> 16 & 0xffff), next = static_cast<int>(ticket & 0xffff);
      if (next >= count) return false;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      part_(context_, next);
      finished_.fetch_add(1, std::memory_order_release);
      return true;
    }
  }

  void help() {
    using Clock = std::chrono::steady_clock;
    auto busy = Clock::now();
    for (;;) {
      if (take()) {
        busy = Clock::now();
        continue;
      }
      for (int i = 0; i < 64; ++i) pause();
      if (Clock::now() - busy < std::chrono::microseconds(50)) continue;
      std::unique_lock<std::mutex> lock(sleep_);
      const std::uint64_t seen = ticket_.load();
      if ((seen & 0xffff) < (seen >> 16 & 0xffff)) continue;
      ++sleepers_;
      wake_.wait(lock, [&] { return ticket_.load() >> 32 != seen >> 32; });
      --sleepers_;
    }
  }

  std::mutex owner_, sleep_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0}, finished_{0};
  std::atomic<std::uint64_t> ticket_{0};
  void (*part_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int started_ = 0;
};

// Never destroyed: at exit a helper may still be about. A forked child has none of its parent's threads, and gets new
// ones when it needs them.
Helpers* helpers = nullptr;

Helpers& the_helpers() {
  static const bool made = [] {
    helpers = new Helpers;
    pthread_atfork(nullptr, nullptr, [] { helpers = new Helpers; });
    return true;
  }();
  static_cast<void>(made);
  return *helpers;
}

int default_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const int asked = text ? std::atoi(text) : 0;
  if (asked > 0) return asked;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return CPU_COUNT(&cores);
  return 1;
}

std::atomic<int> set_{0};
thread_local int threads_of_call = 1;

}  // namespace

int threads() {
  static const int by_default = default_threads();
  const int set = set_.load(), asked = set > 0 ? set : by_default;
  return asked < kMostParts ? asked : kMostParts;
}

void set_threads(int count) { set_.store(count); }

Team team_of(int threads) {
  threads_of_call = threads;
  return {threads, [](int count, void (*part)(void*, int), void* context) {
            the_helpers().run(count, part, context, threads_of_call);
          }};
}

}  // namespace deeprnn
