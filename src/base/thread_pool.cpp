#include "base/thread_pool.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
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

using Clock = std::chrono::steady_clock;

// How often a wait looks before it sleeps: the others of a team are usually about to arrive, and a worker's
// next call comes soon where a model has many layers. About 15 and 75 microseconds on Zen 4.
constexpr int spins_of_member = 1000, spins_of_worker = 5000;

#if defined(__linux__)

int current_cpu() { return sched_getcpu(); }

// While it lives, the calling member of a team stays off the CPUs that the others were last seen on, where
// there are others that it may use. Where one of them has not yet begun, it stays on its own, if that is none
// of those.
//
// In a virtual machine Linux may wake a thread on the CPU of the one that wakes it, though its own is idle.
// There the woken one waits behind the other, which may spin for the rest of the scheduler's slice until the
// woken one arrives (docs/decisions/0008-members-sleep-apart.md). A narrower affinity is how a thread says
// where it is to wake, and how one that shares a CPU leaves it.
class Apart {
 public:
  Apart(Arrivals* team, int rank, int size) {
    const int own = current_cpu();
    team[rank].cpu.store(own, std::memory_order_relaxed);
    if (own < 0 || own >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) return;
    cpu_set_t left = allowed_;
    bool all_begun = true;
    for (int other = 0; other < size; ++other) {
      if (other == rank) continue;
      const int cpu = team[other].cpu.load(std::memory_order_relaxed);
      if (cpu < 0) all_begun = false;
      if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_CLR(cpu, &left);
    }
    if (!all_begun && CPU_ISSET(own, &left)) {
      CPU_ZERO(&left);
      CPU_SET(own, &left);
    }
    narrowed_ = CPU_COUNT(&left) > 0 && CPU_EQUAL(&left, &allowed_) == 0 &&
                sched_setaffinity(0, sizeof left, &left) == 0;
  }
  // All CPUs, where that is what the thread had: the system remembers what it is told, and a set of those
  // that are allowed today would outlast today. It is also what is left where an error refuses the old set.
  ~Apart() {
    if (!narrowed_) return;
    cpu_set_t all, now;
    std::memset(&all, 0xff, sizeof all);
    const bool unbound = sched_setaffinity(0, sizeof all, &all) == 0 &&
                         sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&now, &allowed_) != 0;
    if (!unbound) sched_setaffinity(0, sizeof allowed_, &allowed_);
  }
  Apart(const Apart&) = delete;
  Apart& operator=(const Apart&) = delete;

 private:
  cpu_set_t allowed_;
  bool narrowed_ = false;
};

#else

int current_cpu() { return -1; }
struct Apart {
  Apart(Arrivals*, int, int) {}
};

#endif

// Waits until done(value), and says how long that took. Sleeping, not yielding, since a core that falls idle
// is where the system lets those run that are waited for; before_sleep() is called first.
template <class T, class Done, class BeforeSleep>
Clock::duration wait_until(const std::atomic<T>& value, int spins, const Done& done,
                           const BeforeSleep& before_sleep) {
  if (done(value.load(std::memory_order_acquire))) return {};
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < spins; ++i) {
    relax();
    if (done(value.load(std::memory_order_acquire))) return Clock::now() - begin;
  }
  before_sleep();
  for (T seen = value.load(); !done(seen); seen = value.load()) value.wait(seen);
  return Clock::now() - begin;
}

}  // namespace

void Rests::after_team(Clock::time_point end, Clock::duration lost) {
  if (waking_) {
    waking_ = false;
    return;
  }
  lost_ += lost;
  if (lost_ <= Clock::duration{}) {
    lost_ = {};
    rest_ = first_rest;
  } else if (lost_ > hopeless_loss) {
    until_ = end + rest_ * lost_;
    rest_ = std::min(2 * rest_, longest_rest);
    lost_ = {};
    waking_ = true;
  }
}

void Team::wait_for_all() {
  ++passed_;
  arrivals_[rank_].count.store(passed_);
  arrivals_[rank_].count.notify_all();
  std::optional<Apart> apart;
  for (int other = 0; other < size_; ++other)
    if (other != rank_)
      waited_ += wait_until(
          arrivals_[other].count, spins_of_member, [&](int count) { return count >= passed_; },
          [&] {
            if (!apart) apart.emplace(arrivals_, rank_, size_);
          });
  if (!apart) return;
  const Clock::time_point begin = Clock::now();
  apart.reset();
  waited_ += Clock::now() - begin;
}

void Team::begin_on_own_cpu() {
  const int cpu = current_cpu();
  arrivals_[rank_].cpu.store(cpu, std::memory_order_relaxed);
  const bool shared = cpu >= 0 && std::count_if(arrivals_, arrivals_ + size_, [&](const Arrivals& member) {
                                    return member.cpu.load(std::memory_order_relaxed) == cpu;
                                  }) > 1;  // itself is one
  if (!shared) return;
  { const Apart leaves_it(arrivals_, rank_, size_); }
  arrivals_[rank_].cpu.store(current_cpu(), std::memory_order_relaxed);
}

class ThreadPool {
 public:
  ~ThreadPool() {
    stop_.store(true);
    for (const auto& worker : workers_) {
      call(*worker);
      worker->thread.join();
    }
  }

  // False where nothing has run: the pool is taken, rests, or can have no second thread.
  bool try_run(int threads, void (*body)(void*, Team&), void* context, TeamHost host) {
    const std::unique_lock owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    const Clock::time_point begin = Clock::now();
    if (rests_.resting(begin) && !all_paths) return false;
    if (arrivals_.size() < static_cast<std::size_t>(threads))
      arrivals_ = std::vector<Arrivals>(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) {
      Arrivals& member = arrivals_[static_cast<std::size_t>(i)];
      member.count.store(0);
      member.cpu.store(i == 0 ? current_cpu() : -1, std::memory_order_relaxed);
    }
    finished_.store(0);
    body_ = body;
    context_ = context;
    threads_ = threads;
    size_ = 1;
    if (host == nullptr || !host(threads, run_hosted, this)) run_on_workers();
    if (size_ == 1) return false;
    const Clock::time_point end = Clock::now();
    // Less than a tenth gained counts as lost: the estimate is no better, since a caller alone may go another
    // way (0005), and the other cores have better things to do.
    rests_.after_team(end, end - begin - size_ * worked_ * 9 / 10);
    return true;
  }

 private:
  // On cache lines of its own.
  struct alignas(64) Worker {
    std::atomic<unsigned> calls{0};
    std::thread thread;
  };

  static void call(Worker& worker) {
    worker.calls.fetch_add(1);
    worker.calls.notify_one();
  }

  void run_on_workers() {
    grow(threads_ - 1);
    size_ = std::min(static_cast<int>(workers_.size()) + 1, threads_);
    for (int i = 0; i < size_ - 1; ++i) call(*workers_[static_cast<std::size_t>(i)]);
    if (size_ > 1) run_member(0, size_);
  }

  void grow(int wanted) {
    const int size = static_cast<int>(workers_.size());
    if (wanted <= size) return;
    workers_.reserve(static_cast<std::size_t>(wanted));
    for (int rank = size + 1; rank <= wanted; ++rank) {
      auto worker = std::make_unique<Worker>();
      try {
        worker->thread = std::thread([this, rank, &own = *worker] { work(rank, own); });
      } catch (const std::system_error&) {
        return;  // the system gives no more threads: fewer do the same work
      }
      workers_.push_back(std::move(worker));  // has a thread: one without would be waited for, forever
    }
  }

  void work(int rank, Worker& worker) {
    const FloatEnvironment environment;
    for (unsigned seen = 0;; ++seen) {
      wait_until(
          worker.calls, spins_of_worker, [&](unsigned calls) { return calls != seen; }, [] {});
      if (stop_.load()) return;
      run_member(rank, size_);
    }
  }

  // On a thread of the host. A team of one is left to the caller, outside: its body may throw.
  static void run_hosted(void* context, int rank, int threads) {
    ThreadPool& pool = *static_cast<ThreadPool*>(context);
    const int size = std::min(threads, pool.threads_);
    if (rank == 0) pool.size_ = size;
    if (size == 1 || rank >= size) return;
    const FloatEnvironment environment;
    pool.run_member(rank, size);
  }

  void run_member(int rank, int size) {
    Team team(rank, size, arrivals_.data());
    if (rank > 0) team.begin_on_own_cpu();
    const Clock::time_point begin = Clock::now();
    body_(context_, team);
    const int others = size - 1;
    if (rank > 0) {
      if (finished_.fetch_add(1) + 1 == others) finished_.notify_one();
      return;
    }
    worked_ = Clock::now() - begin - team.waited_;
    std::optional<Apart> apart;
    wait_until(
        finished_, spins_of_member, [&](int count) { return count == others; },
        [&] { apart.emplace(arrivals_.data(), rank, size); });
  }

  std::mutex owner_;  // held by the caller whose work the pool does; guards all but the atomics
  std::vector<std::unique_ptr<Worker>> workers_;
  Rests rests_;

  // Of the team that runs: written by the caller before the others begin. A host's members know the size from
  // it, so that only workers read size_; worked_ is the caller's alone.
  std::vector<Arrivals> arrivals_;
  void (*body_)(void*, Team&) = nullptr;
  void* context_ = nullptr;
  int threads_ = 1;  // wanted
  int size_ = 1;     // had
  Clock::duration worked_{};

  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<int> finished_{0};  // members, without the caller
};

namespace {

// After fork the child has the caller's thread alone, so the pool it inherits is a shell: it is left as it
// is (its threads cannot be joined) and a new one is made when it is first needed.
std::atomic<ThreadPool*> current_pool{nullptr};
std::mutex pool_mutex;
std::atomic<TeamHost> team_host{nullptr};

ThreadPool& pool() {
  if (ThreadPool* existing = current_pool.load(std::memory_order_acquire)) return *existing;
  const std::lock_guard lock(pool_mutex);
  if (current_pool.load(std::memory_order_relaxed) == nullptr) {
#if defined(__unix__) || defined(__APPLE__)
    static const int registered = pthread_atfork([] { pool_mutex.lock(); }, [] { pool_mutex.unlock(); },
                                                 [] {
                                                   current_pool.store(nullptr);
                                                   team_host.store(nullptr);
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

void run_team(int threads, void (*body)(void*, Team&), void* context) {
  if (threads > 1 && pool().try_run(threads, body, context, team_host.load())) return;
  Team alone = Team::of_one();
  body(context, alone);
}

void set_team_host(TeamHost host) {
  pool();  // from here on a fork takes the host away
  team_host.store(host);
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
