#include "measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <system_error>
#include <vector>

#include "fourfold/error.h"

namespace cli {
namespace {

namespace fs = std::filesystem;

// A folder of our own under the system's temporary one, gone when this is.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code error;
    const fs::path parent = fs::temp_directory_path(error);
    if (error) {
      const char* named = std::getenv("TMPDIR");
      throw fourfold::Error(
          fmt::format("temporary folder {}: {}", named == nullptr ? "/tmp" : named, error.message()));
    }
    std::random_device random;
    do {
      path_ = parent / fmt::format("fourfold-{:08x}", random());
    } while (!fs::create_directory(path_, error) && !error);
    if (error)
      throw fourfold::Error(fmt::format("temporary folder {}: {}", parent.string(), error.message()));
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

std::uintmax_t file_bytes(const fourfold::ModuleTree& model, const std::string& name) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / name;
  fourfold::save(model, path);
  return fs::file_size(path);
}

std::string as_size_ratio(double times_smaller) {
  return times_smaller >= 1 ? fmt::format("{:.2f} times smaller", times_smaller)
                            : fmt::format("{:.2f} times larger", 1 / times_smaller);
}

std::string as_speedup(double times_faster) {
  return times_faster >= 1 ? fmt::format("{:.2f} times faster", times_faster)
                           : fmt::format("{:.2f} times slower", 1 / times_faster);
}

Latencies measure_in_turn(const std::function<void()>& first, const std::function<void()>& second) {
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  constexpr int at_least = 15, at_most = 5000;
  constexpr Seconds budget(2);
  const auto one = [](const std::function<void()>& call) {
    const auto start = Clock::now();
    call();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  };
  one(first), one(second);
  std::vector<double> first_times, second_times;
  Progress progress("measuring");
  const auto start = Clock::now();
  for (int i = 0; i < at_most; ++i) {
    const Seconds passed = Clock::now() - start;
    if (i >= at_least && passed >= budget) break;
    progress.at(std::max(passed / budget < 1 ? passed / budget : 0.0, static_cast<double>(i) / at_most));
    // A model that is called again and again finds its weights in cache; a stranger's call between would not.
    one(first);
    first_times.push_back(one(first));
    one(second);
    second_times.push_back(one(second));
  }
  const auto median = [](std::vector<double>& times) {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  };
  return {median(first_times), median(second_times)};
}

Difference difference(const fourfold::Tensor& expected, const fourfold::Tensor& actual) {
  const float* a = expected.data<float>();
  const float* b = actual.data<float>();
  const auto count = expected.numel();
  double sum_a = 0, sum_b = 0, sum = 0, largest = 0, aa = 0, bb = 0, ab = 0, dd = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = a[i], y = b[i], d = x - y;
    sum_a += std::abs(x);
    sum_b += std::abs(y);
    sum += std::abs(d);
    largest = std::isnan(d) ? d : std::max(largest, std::abs(d));
    aa += x * x;
    bb += y * y;
    ab += x * y;
    dd += d * d;
  }
  const auto n = static_cast<double>(count);
  return {.mean_expected = sum_a / n,
          .mean_actual = sum_b / n,
          .mean = sum / n,
          .largest = largest,
          .percent = sum / sum_a * 100,
          .cosine = ab / (std::sqrt(aa) * std::sqrt(bb)),
          .snr = 10 * std::log10(aa / dd)};
}

}  // namespace cli
