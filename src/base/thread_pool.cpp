#include "base/thread_pool.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "fourfold/threads.h"

namespace fourfold::base {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Spins a little, since the others are usually about to arrive; then gives the core away, since on a busy
// machine they may not be running at all.
template <class Done>
void wait_until(Done&& done) {
  for (int i = 0; i < 2000; ++i) {
    if (done()) return;
    relax();
  }
  while (!done()) std::this_thread::yield();
}

}  // namespace

void Team::wait_for_all() {
  const int phase = phase_->load(std::memory_order_relaxed);
  if (arrived_->fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_->store(0, std::memory_order_relaxed);
    phase_->store(phase + 1, std::memory_order_release);
  } else {
    wait_until([&] { return phase_->load(std::memory_order_acquire) != phase; });
  }
}

class ThreadPool {
 public:
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  // False where the pool is taken; nothing has run then.
  bool try_run(int threads, void (*body)(void*, Team&), void* context) {
    const std::unique_lock owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    grow(threads - 1);
    const int size =
        static_cast<int>(workers_.size()) + 1 < threads ? static_cast<int>(workers_.size()) + 1 : threads;
    if (size == 1) return false;
    {
      const std::lock_guard lock(mutex_);
      body_ = body;
      context_ = context;
      size_ = size;
      running_.store(size - 1, std::memory_order_relaxed);
      ++job_;
    }
    wake_.notify_all();
    Team team(0, size, &arrived_, &phase_);
    body(context, team);
    wait_until([&] { return running_.load(std::memory_order_acquire) == 0; });
    return true;
  }

 private:
  void grow(int wanted) {
    while (static_cast<int>(workers_.size()) < wanted) {
      const int rank = static_cast<int>(workers_.size()) + 1;
      try {
        workers_.emplace_back([this, rank, job = job_] { work(rank, job); });
      } catch (const std::system_error&) {
        return;  // the system gives no more threads: fewer do the same work
      }
    }
  }

  void work(int rank, unsigned seen) {
    const FloatEnvironment environment;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || job_ != seen; });
      if (stop_) return;
      seen = job_;
      if (rank >= size_) continue;
      const auto body = body_;
      void* const context = context_;
      Team team(rank, size_, &arrived_, &phase_);
      lock.unlock();
      body(context, team);
      running_.fetch_sub(1, std::memory_order_release);
      lock.lock();
    }
  }

  std::mutex owner_;  // held by the caller whose work the pool does
  std::vector<std::thread> workers_;

  std::mutex mutex_;  // guards the five below
  std::condition_variable wake_;
  bool stop_ = false;
  unsigned job_ = 0;
  int size_ = 1;
  void (*body_)(void*, Team&) = nullptr;
  void* context_ = nullptr;

  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
};

namespace {

// After fork the child has the caller's thread alone, so the pool it inherits is a shell: it is left as it
// is (its threads cannot be joined) and a new one is made when it is first needed.
std::atomic<ThreadPool*> current_pool{nullptr};
std::mutex pool_mutex;

ThreadPool& pool() {
  if (ThreadPool* existing = current_pool.load(std::memory_order_acquire)) return *existing;
  const std::lock_guard lock(pool_mutex);
  if (current_pool.load(std::memory_order_relaxed) == nullptr) {
#if defined(__unix__) || defined(__APPLE__)
    static const int registered = pthread_atfork([] { pool_mutex.lock(); }, [] { pool_mutex.unlock(); },
                                                 [] {
                                                   current_pool.store(nullptr);
                                                   pool_mutex.unlock();
                                                 });
    static_cast<void>(registered);
#endif
    // Joins the threads when the process ends in an orderly way.
    static struct Joiner {
      ~Joiner() { delete current_pool.exchange(nullptr); }
    } joiner;
    current_pool.store(new ThreadPool, std::memory_order_release);
  }
  return *current_pool.load(std::memory_order_relaxed);
}

int allowed_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> threads{allowed_cpus()};
  return threads;
}

}  // namespace

void run_alone(void (*body)(void*, Team&), void* context) {
  Team team(0, 1, nullptr, nullptr);
  body(context, team);
}

void run_team(int threads, void (*body)(void*, Team&), void* context) {
  if (threads <= 1 || !pool().try_run(threads, body, context)) run_alone(body, context);
}

}  // namespace fourfold::base

namespace fourfold {

void set_num_threads(int threads) {
  constexpr int most = 1024;
  if (threads < 1 || threads > most)
    throw InvalidArgument("set_num_threads(" + std::to_string(threads) + "): must be from 1 to " +
                          std::to_string(most));
  base::thread_setting().store(threads, std::memory_order_relaxed);
}

int num_threads() { return base::thread_setting().load(std::memory_order_relaxed); }

}  // namespace fourfold
