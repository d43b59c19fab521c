// The library under load for minutes: many threads, many models, many steps, forks. `make soak` runs it; what
// it prints are the figures, and it exits with 1 where a result is wrong, memory grows, or two threads gain
// too little.
//
//   soak            all, 8 threads with 100,000 calls each
//   soak CALLS      with as many calls; models, steps and forks go with them
//   soak streams    what two threads gain over one, alone
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "fourfold/fourfold.h"
#include "unit/folder.h"

namespace {

using namespace fourfold;
using Clock = std::chrono::steady_clock;

constexpr int callers = 8;
constexpr double most_growth = 2;  // MB, between two halves of the same work
constexpr double least_gain = 1.8;

bool all_right = true;

void report(const std::string& what, bool right, const std::string& figures) {
  std::printf("%-7s %s: %s\n", right ? "right" : "WRONG", what.c_str(), figures.c_str());
  std::fflush(stdout);
  all_right = all_right && right;
}

std::string number(double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, "%.2f %s", value, unit);
  return text;
}

// Of this process, in MB; 0 where the system does not say.
double resident_memory() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::ranges::equal(a.bytes(), b.bytes());
}

// Runs `half` twice: what it needs is there after the first time.
template <class Half>
void report_flat(const std::string& what, const Half& half) {
  std::int64_t wrong = half();
  const double before = resident_memory();
  wrong += half();
  const double after = resident_memory();
  report(what, wrong == 0 && after - before <= most_growth,
         std::to_string(wrong) + " wrong, memory " + number(before, "MB") + " then " + number(after, "MB"));
}

Lstm small_lstm() {
  Lstm lstm({.input_size = 32, .hidden_size = 64});
  lstm.quantize(DType::qint8);
  return lstm;
}

// One model, called by all at once: what each gets is what one gets alone.
void calls(std::int64_t count) {
  const Lstm lstm = small_lstm();
  std::vector<Tensor> inputs, expected;
  for (int i = 0; i < 16; ++i) {
    inputs.push_back(randn({4, 1 + i % 4, 32}));
    expected.push_back(lstm(inputs.back()).output);
  }
  report_flat(std::to_string(callers) + " threads x " + std::to_string(count) + " calls of one model", [&] {
    std::atomic<std::int64_t> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < callers; ++t)
      threads.emplace_back([&, t] {
        for (std::int64_t i = 0; i < count / 2; ++i) {
          const auto at = static_cast<std::size_t>(i + t) % inputs.size();
          if (!same(lstm(inputs[at]).output, expected[at])) ++wrong;
        }
      });
    for (std::thread& thread : threads) thread.join();
    return wrong.load();
  });
}

// Models loaded, called and freed by all threads.
void models(std::int64_t count) {
  const test::Folder folder;
  const Sequential model = quantize_dynamic(Sequential(Lstm({.input_size = 32, .hidden_size = 64}),
                                                       Linear({.in_features = 64, .out_features = 8})));
  save(model, folder / "model.safetensors");
  const Tensor input = randn({5, 2, 32}), expected = model(input);
  report_flat(
      std::to_string(callers) + " threads x " + std::to_string(count) + " models loaded, called, freed", [&] {
        std::atomic<std::int64_t> wrong = 0;
        std::vector<std::thread> threads;
        for (int t = 0; t < callers; ++t)
          threads.emplace_back([&] {
            for (std::int64_t i = 0; i < count / 2; ++i)
              if (!same(load(folder / "model.safetensors")(input), expected)) ++wrong;
          });
        for (std::thread& thread : threads) thread.join();
        return wrong.load();
      });
}

void steps(std::int64_t count) {
  const Lstm lstm = small_lstm();
  const std::vector<float> frame(32, 0.5F);
  std::vector<float> output(64);
  report_flat(std::to_string(count) + " steps, a new state every 1,000", [&] {
    for (std::int64_t i = 0; i < count / 2; i += 1000) {
      StreamState state(lstm);
      for (int s = 0; s < 1000; ++s) lstm.step(state, frame, output);
    }
    return 0;
  });
}

// Children of a process whose pool is at work, which end as programs do: with static objects destroyed.
void forks(int count) {
  const Lstm lstm = quantize_dynamic(Lstm({.input_size = 32, .hidden_size = 400}), {Kind::lstm});
  const Tensor input = randn({6, 1, 32}), expected = lstm(input).output;
  std::atomic<bool> stop = false;
  std::atomic<std::int64_t> wrong = 0;
  std::thread busy([&] {
    while (!stop)
      if (!same(lstm(input).output, expected)) ++wrong;
  });
  for (int i = 0; i < count; ++i) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      std::exit(same(lstm(input).output, expected) ? 0 : 1);
    }
    int status = 1;
    if (waitpid(child, &status, 0) != child || status != 0) ++wrong;
  }
  stop = true;
  busy.join();
  report(std::to_string(count) + " forks while the pool is at work", wrong == 0,
         std::to_string(wrong) + " wrong");
}

// Steps a second of `threads` threads, each with a stream of its own.
double throughput(const Lstm& lstm, int threads) {
  std::atomic<bool> stop = false;
  std::atomic<std::int64_t> done = 0;
  std::vector<std::thread> running;
  const Clock::time_point begin = Clock::now();
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&] {
      StreamState state(lstm);
      const std::vector<float> frame(128, 0.5F);
      std::vector<float> output(128);
      std::int64_t own = 0;
      for (; !stop; ++own) lstm.step(state, frame, output);
      done += own;
    });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  stop = true;
  for (std::thread& thread : running) thread.join();
  return static_cast<double>(done) / std::chrono::duration<double>(Clock::now() - begin).count();
}

void two_streams() {
  Lstm lstm({.input_size = 128, .hidden_size = 128});
  lstm.quantize(DType::qint8);
  throughput(lstm, 2);
  std::vector<double> one, two;  // in turn, so that what else the machine does falls on both
  for (int i = 0; i < 7; ++i) one.push_back(throughput(lstm, 1)), two.push_back(throughput(lstm, 2));
  std::ranges::sort(one), std::ranges::sort(two);
  const double gain = two[3] / one[3];
  report("two threads, a stream each, LSTM(128, 128)", gain >= least_gain,
         number(one[3], "steps/s by one") + ", " + number(two[3], "by two") + ", " + number(gain, "times"));
}

}  // namespace

int main(int argc, char** argv) {
  const bool only_streams = argc == 2 && std::string(argv[1]) == "streams";
  const std::int64_t count = argc == 2 && !only_streams ? std::atoll(argv[1]) : 100'000;
  if (argc > 2 || count < 100) {
    std::fputs("usage: soak [CALLS | streams]    CALLS at least 100\n", stderr);
    return 2;
  }
  if (!only_streams) {
    calls(count);
    models(count / 100);
    steps(count * 10);
    forks(static_cast<int>(std::min<std::int64_t>(count / 100, 200)));
  }
  if (std::thread::hardware_concurrency() >= 2) two_streams();
  return all_right ? 0 : 1;
}
