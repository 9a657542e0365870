// Work in parts, on the threads of XLA's own pool.

#ifndef CODED_JAX_PARALLEL_H_
#define CODED_JAX_PARALLEL_H_

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace coded_jax {

namespace ffi = xla::ffi;

// Returns how many cores the process may use.
inline int Cores() {
  static const int cores = [] {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  }();
  return cores;
}

// Calls a function with 0, 1 .. count - 1. The calling thread takes part and waits only
// for calls that have begun, so that it never waits for a thread that waits itself: one
// that comes late finds no call left, and returns without touching the function.
class Parts {
 public:
  Parts(int count, std::function<void(int)> f) : count_(count), f_(std::move(f)) {}

  static void Run(ffi::ThreadPool& pool, int count, std::function<void(int)> f) {
    auto parts = std::make_shared<Parts>(count, std::move(f));
    for (int i = 1; i < count; ++i) pool.Schedule([parts] { parts->Take(); });
    parts->Take();
    std::unique_lock<std::mutex> lock(parts->mutex_);
    parts->all_done_.wait(lock, [&] { return parts->done_ == count; });
    if (!parts->error_.empty()) throw std::runtime_error(parts->error_);
  }

 private:
  void Take() {
    for (int i; (i = next_++) < count_;) {
      std::string error;
      try {
        f_(i);
      } catch (const std::exception& e) {
        error = e.what();
      }
      std::lock_guard<std::mutex> lock(mutex_);
      if (!error.empty()) error_ = error;
      if (++done_ == count_) all_done_.notify_all();
    }
  }

  const int count_;
  const std::function<void(int)> f_;
  std::atomic<int> next_{0};
  int done_ = 0;
  std::string error_;
  std::mutex mutex_;
  std::condition_variable all_done_;
};

}  // namespace coded_jax

#endif  // CODED_JAX_PARALLEL_H_
