// The number of threads, and the pool of them: after fork, while another caller has it, at the process's end;
// their CPUs; and threads of something else in its place. That results do not depend on it:
// bit_equality_test.cpp.
#include "fourfold/threads.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "unit/helpers.h"

// GCC defines macros, clang has features.
#if defined(__has_feature)
#define FOURFOLD_HAS_FEATURE(name) __has_feature(name)
#else
#define FOURFOLD_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || FOURFOLD_HAS_FEATURE(address_sanitizer)
#define FOURFOLD_ADDRESS_SANITIZER
#include <sanitizer/lsan_interface.h>
// In the child of a fork nothing points any more to what the parent's other threads had: the leak sanitizer
// asks here whether it has to look.
static bool is_forked_child = false;
int __lsan_is_turned_off() { return is_forked_child ? 1 : 0; }
#endif
#if defined(__SANITIZE_THREAD__) || FOURFOLD_HAS_FEATURE(thread_sanitizer)
#define FOURFOLD_THREAD_SANITIZER
#endif

namespace fourfold::test {
namespace {

class Threads : public SettingsTest {
 protected:
  // Large enough for a team at each step, and of sequences and rows enough for each thread to have its own.
  const Lstm lstm_ = quantized(Lstm({.input_size = 20, .hidden_size = 400}));
  const Linear linear_ = quantized(Linear({.in_features = 20, .out_features = 40}));
  const Tensor input_ = randn({10, 1, 20}), batch_ = randn({3, 5, 20}), rows_ = randn({1031, 20});
  const LstmOutput expected_ = lstm_(input_), expected_batch_ = lstm_(batch_);
  const Tensor expected_rows_ = linear_(rows_);

  bool is_right() const {
    return same_bits(expected_, lstm_(input_)) && same_bits(expected_batch_, lstm_(batch_)) &&
           same_bits(expected_rows_, linear_(rows_));
  }

  void expect_two_callers_are_right() const {
    std::atomic<bool> stop = false;
    std::atomic<int> wrong = 0;
    std::thread other([&] {
      while (!stop)
        if (!is_right()) ++wrong;
    });
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(is_right());
    stop = true;
    other.join();
    EXPECT_EQ(wrong, 0);
  }

  // What becomes of a child that runs `body` and then ends as a program does. A child that hangs is killed.
  template <class Body>
  static void expect_child_is_right(const Body& body) {
    std::fflush(nullptr);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
#if defined(FOURFOLD_ADDRESS_SANITIZER)
      is_forked_child = true;
#endif
      alarm(60);
      std::exit(body() ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_FALSE(WIFSIGNALED(status)) << "ended by signal " << WTERMSIG(status);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child's result is another";
  }
};

TEST_F(Threads, DefaultIsTheNumberOfCpusAllowed) {
#if defined(__linux__)
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  EXPECT_EQ(num_threads(), CPU_COUNT(&set));
#endif
  EXPECT_GE(num_threads(), 1);
}

TEST_F(Threads, Limits) {
  for (const int threads : {1, 3, 1024}) {
    set_num_threads(threads);
    EXPECT_EQ(num_threads(), threads);
  }
  set_num_threads(3);
  EXPECT_EQ(message_of<InvalidArgument>([] { set_num_threads(0); }),
            "set_num_threads(0): must be from 1 to 1024");
  EXPECT_EQ(message_of<InvalidArgument>([] { set_num_threads(-2); }),
            "set_num_threads(-2): must be from 1 to 1024");
  EXPECT_EQ(message_of<InvalidArgument>([] { set_num_threads(1025); }),
            "set_num_threads(1025): must be from 1 to 1024");
  EXPECT_EQ(num_threads(), 3);
}

TEST_F(Threads, MoreThanThereAreCpusOrPanels) {
  set_num_threads(40);
  EXPECT_TRUE(is_right());
}

TEST_F(Threads, FewerAgain) {
  for (const int threads : {4, 1, 2, 3, 1, 4}) {
    set_num_threads(threads);
    EXPECT_TRUE(is_right()) << threads;
  }
}

TEST_F(Threads, PoolIsBusy) {
  set_num_threads(2);
  expect_two_callers_are_right();
}

// A caller's own threads come and go; the pool's stay.
TEST_F(Threads, CallersComeAndGo) {
  set_num_threads(2);
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 20; ++i) std::thread([&] { wrong += is_right() ? 0 : 1; }).join();
  EXPECT_EQ(wrong, 0);
}

// ---- Threads of something else ----

// How many the host has, whatever is asked for; 0: it refuses.
std::atomic<int> host_size = 0, host_calls = 0, host_delay = 0;  // milliseconds

bool rounds_up() {
  const volatile float one = 1, little = 1e-10F;
  return one + little > 1;
}

bool host(int /*threads*/, void (*member)(void*, int, int), void* context) {
  ++host_calls;
  std::this_thread::sleep_for(std::chrono::milliseconds(host_delay));
  const int size = host_size;
  if (size == 0) return false;
  std::vector<std::thread> others;
  for (int rank = 1; rank < size; ++rank)
    others.emplace_back([=] {
      std::fesetround(FE_UPWARD);  // a setting of its own, which has to be there afterwards
      member(context, rank, size);
      EXPECT_TRUE(rounds_up());
    });
  member(context, 0, size);
  for (std::thread& other : others) other.join();
  return true;
}

class HostedThreads : public Threads {
 protected:
  void SetUp() override {
    Threads::SetUp();
    host_calls = 0;
    base::set_team_host(host);
  }
  void TearDown() override {
    base::set_team_host(nullptr);
    host_delay = 0;
    Threads::TearDown();
  }
};

TEST_F(HostedThreads, AsManyAsTheHostHas) {
  for (const int asked : {2, 3, 4})
    for (const int has : {0, 1, 2, 3, 6}) {
      set_num_threads(asked);
      host_size = has;
      host_calls = 0;
      EXPECT_TRUE(is_right()) << asked << " " << has;
      EXPECT_GT(host_calls, 0);
      std::atomic<int> members = 0, size = 0;
      base::run_team(asked, [&](base::Team& team) {
        ++members;
        if (team.rank() == 0) size = team.size();
        team.barrier();
        EXPECT_EQ(team.size(), size);
      });
      EXPECT_EQ(members, has == 0 ? asked : std::min(asked, has));
      EXPECT_EQ(members, size);
    }
}

// By the rules in use, by which the first calls may work alone, as teams have lost time in other tests.
TEST_F(HostedThreads, DivideSequences) {
  const Lstm lstm = quantized(Lstm({.input_size = 20, .hidden_size = 64, .num_layers = 2}));
  const Tensor input = randn({70, 13, 20});
  set_num_threads(1);
  const LstmOutput expected = lstm(input);
  base::all_paths = false;
  for (const int has : {2, 3}) {
    set_num_threads(3);
    host_size = has;
    host_calls = 0;
    for (int i = 0; i < 10'000 && host_calls == 0; ++i) EXPECT_TRUE(same_bits(expected, lstm(input))) << has;
    EXPECT_EQ(host_calls, 1) << "not one team for both layers";
  }
}

TEST_F(HostedThreads, OneTeamAtATime) {
  set_num_threads(2);
  host_size = 2;
  expect_two_callers_are_right();
  base::run_team(2, [&](base::Team& outer) {
    if (outer.rank() > 0) return;
    const int calls = host_calls;
    std::thread([] { base::run_team(2, [](base::Team& inner) { EXPECT_EQ(inner.size(), 1); }); }).join();
    EXPECT_EQ(host_calls, calls);
  });
}

TEST_F(HostedThreads, TheirFloatingPointSettings) {
  set_num_threads(2);
  host_size = 2;
  EXPECT_TRUE(is_right());
  base::run_team(2, [](base::Team&) { EXPECT_FALSE(rounds_up()); });
}

TEST_F(HostedThreads, LosingTeamsAreGivenUpForAWhile) {
  base::all_paths = false;
  host_size = 2;
  host_delay = 2;
  int alone = 0;
  for (int i = 0; i < 100; ++i)
    base::run_team(2, [&](base::Team& team) {
      if (team.size() == 1) ++alone;
    });
  EXPECT_EQ(alone, 100 - host_calls);
  EXPECT_GT(alone, 0);
}

TEST(Rests, GrowWhileTeamsLoseAndEndWhereOneGains) {
  using namespace std::chrono_literals;
  base::Rests rests;
  base::Rests::Clock::time_point now{};
  const auto rest_after = [&](base::Rests::Clock::duration lost) {
    rests.after_team(now, lost);
    auto rest = 0us;
    while (rests.resting(now)) now += 100us, rest += 100us;
    return rest;
  };
  EXPECT_EQ(rest_after(150us), 0us);
  EXPECT_EQ(rest_after(150us), 600us) << "twice what both lost";
  EXPECT_EQ(rest_after(1ms), 0us) << "threads wake";
  EXPECT_EQ(rest_after(1ms), 4ms);
  EXPECT_EQ(rest_after(1ms), 0us);
  EXPECT_EQ(rest_after(1ms), 8ms);
  EXPECT_EQ(rest_after(1ms), 0us);
  EXPECT_EQ(rest_after(-1us), 0us);
  EXPECT_EQ(rest_after(1ms), 2ms);
  for (int i = 0; i < 21; ++i) rest_after(1ms);
  EXPECT_EQ(rest_after(1ms), 128ms);
}

TEST(Team, NoSliceIsLongerThanTheCallers) {
  for (int size = 1; size <= 9; ++size)
    for (int count = 0; count <= 40; ++count) {
      std::vector<int> lengths(static_cast<std::size_t>(size));
      std::atomic<int> members = 0;
      base::all_paths = true;
      base::run_team(size, [&](base::Team& team) {
        const auto [begin, end] = team.slice(count);
        lengths[static_cast<std::size_t>(team.rank())] = end - begin;
        if (team.rank() == 0) members = team.size();
      });
      lengths.resize(static_cast<std::size_t>(members));
      EXPECT_EQ(std::accumulate(lengths.begin(), lengths.end(), 0), count);
      for (const int length : lengths) EXPECT_TRUE(length <= lengths[0] && length >= lengths[0] - 1);
    }
}

#if defined(__linux__)

cpu_set_t affinity_of(pid_t thread) {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(thread, sizeof set, &set), 0);
  return set;
}

// Who sleeps at a barrier is kept off the others' CPUs, and has its affinity back when it wakes.
TEST_F(Threads, MembersSleepApart) {
  const cpu_set_t expected = affinity_of(0);
  if (CPU_COUNT(&expected) < 2) GTEST_SKIP() << "one CPU is all there is";
  set_num_threads(2);
  const auto is_as_it_was = [&](pid_t thread) {
    const cpu_set_t now = affinity_of(thread);
    return CPU_EQUAL(&expected, &now) != 0;
  };
  int teams = 0;
  for (int i = 0; i < 40; ++i) {
    std::atomic<pid_t> sleeper = 0;
    base::run_team(2, [&](base::Team& team) {
      if (team.size() == 1) return;
      EXPECT_TRUE(is_as_it_was(0)) << "rank " << team.rank() << ", team " << i;
      if (team.rank() == i % 2) {
        // Late, and not before the other is seen to sleep apart.
        const auto narrower = [&] { return sleeper != 0 && !is_as_it_was(sleeper); };
        for (int tries = 0; tries < 10000 && !narrower(); ++tries)
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        EXPECT_TRUE(narrower()) << "rank " << team.rank() << ", team " << i;
      } else {
        sleeper = gettid();
      }
      team.barrier();
      EXPECT_TRUE(is_as_it_was(0)) << "rank " << team.rank() << ", team " << i;
      // At the end the caller waits for the others.
      if (team.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(i % 3));
      if (team.rank() == 0) ++teams;
    });
    EXPECT_TRUE(is_as_it_was(0)) << "after team " << i;
  }
  EXPECT_GT(teams, 0);
}

// A host whose second thread begins where the caller is, free to go elsewhere, and is all other members in
// turn.
std::atomic<int> begun_together = 0, went_away = 0;
bool host_on_one_cpu(int threads, void (*member)(void*, int, int), void* context) {
  const int cpu = sched_getcpu();
  std::thread other([=] {
    const cpu_set_t allowed = affinity_of(0);
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(cpu, &here);
    EXPECT_EQ(sched_setaffinity(0, sizeof here, &here), 0);
    EXPECT_EQ(sched_setaffinity(0, sizeof allowed, &allowed), 0);
    begun_together += sched_getcpu() == cpu ? 1 : 0;
    for (int rank = 1; rank < threads; ++rank) member(context, rank, threads);
  });
  member(context, 0, threads);
  other.join();
  return true;
}

TEST_F(HostedThreads, MembersBeginApart) {
  const cpu_set_t allowed = affinity_of(0);
  if (CPU_COUNT(&allowed) < 2) GTEST_SKIP() << "one CPU is all there is";
  base::set_team_host(host_on_one_cpu);
  // Of three, the last has not yet begun.
  for (const int threads : {2, 3}) {
    begun_together = went_away = 0;
    for (int i = 0; i < 40; ++i) {
      const int callers = sched_getcpu();
      base::run_team(threads, [&](base::Team& team) {
        if (team.rank() == 1) went_away += sched_getcpu() != callers ? 1 : 0;
        const cpu_set_t now = affinity_of(0);
        EXPECT_TRUE(CPU_EQUAL(&now, &allowed) != 0);
      });
    }
    EXPECT_GE(2 * went_away, begun_together) << threads << " threads, of " << begun_together;
    EXPECT_GT(begun_together, 0);
  }
}

#endif

TEST_F(HostedThreads, ATeamOfOneMayThrow) {
  host_size = 1;
  EXPECT_THROW(base::run_team(2, [](base::Team&) { throw std::runtime_error("alone"); }), std::runtime_error);
  host_size = 2;
  set_num_threads(2);
  EXPECT_TRUE(is_right());
}

// ---- fork ----

// The thread sanitizer and qemu allow no new threads in the child of a process that has some.
#if defined(FOURFOLD_THREAD_SANITIZER)
#define FOURFOLD_SKIP_FORK() GTEST_SKIP() << "the thread sanitizer cannot follow a fork"
#elif defined(FOURFOLD_EMULATED)
#define FOURFOLD_SKIP_FORK() GTEST_SKIP() << "qemu cannot follow a fork"
#else
#define FOURFOLD_SKIP_FORK() static_cast<void>(0)
#endif

TEST_F(Threads, ForkBeforeThePoolIsUsed) {
  FOURFOLD_SKIP_FORK();
  set_num_threads(2);
  expect_child_is_right([&] { return is_right(); });
  EXPECT_TRUE(is_right());
}

TEST_F(Threads, ForkAfterThePoolWasUsed) {
  FOURFOLD_SKIP_FORK();
  set_num_threads(3);
  EXPECT_TRUE(is_right());
  for (int i = 0; i < 5; ++i) expect_child_is_right([&] { return is_right() && is_right(); });
  EXPECT_TRUE(is_right());
}

TEST_F(Threads, ForkOfAFork) {
  FOURFOLD_SKIP_FORK();
  set_num_threads(2);
  EXPECT_TRUE(is_right());
  expect_child_is_right([&] {
    if (!is_right()) return false;
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) std::exit(is_right() ? 0 : 1);
    int status = 1;
    return waitpid(child, &status, 0) == child && status == 0 && is_right();
  });
}

// The child of a process whose other thread has the pool.
TEST_F(Threads, ForkInTheMiddleOfATeam) {
  FOURFOLD_SKIP_FORK();
  set_num_threads(2);
  EXPECT_TRUE(is_right());
  std::atomic<int> size = 0;
  std::atomic<bool> stop = false;
  std::thread other([&] {
    base::run_team(2, [&](base::Team& team) {
      team.barrier();
      if (team.rank() == 0) size = team.size();
      while (!stop) std::this_thread::yield();
    });
  });
  while (size == 0) std::this_thread::yield();
  EXPECT_EQ(size, 2);
  for (int i = 0; i < 5; ++i)
    expect_child_is_right([&] {
      int own = 0;  // the child's pool is its own, and not taken
      base::run_team(2, [&](base::Team& team) {
        if (team.rank() == 0) own = team.size();
      });
      return own == 2 && is_right();
    });
  stop = true;
  other.join();
  EXPECT_TRUE(is_right());
}

// The same at any moment of a call. The address sanitizer's allocator, unlike the system's, does not wait for
// other threads to be out of it before a fork: the child would find its locks taken, forever.
TEST_F(Threads, ForkAtAnyMoment) {
  FOURFOLD_SKIP_FORK();
#if defined(FOURFOLD_ADDRESS_SANITIZER)
  GTEST_SKIP() << "the address sanitizer cannot follow a fork while memory is allocated";
#endif
  set_num_threads(2);
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0, calls = 0;
  std::thread other([&] {
    for (; !stop; ++calls)
      if (!is_right()) ++wrong;
  });
  while (calls == 0) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) expect_child_is_right([&] { return is_right() && is_right(); });
  stop = true;
  other.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(is_right());
}

TEST_F(HostedThreads, ForkLeavesTheHost) {
  FOURFOLD_SKIP_FORK();
  set_num_threads(2);
  host_size = 2;
  EXPECT_TRUE(is_right());
  expect_child_is_right([&] {
    const int calls = host_calls;
    return is_right() && host_calls == calls;
  });
  const int calls = host_calls;
  EXPECT_TRUE(is_right());
  EXPECT_GT(host_calls, calls);
}

}  // namespace
}  // namespace fourfold::test
