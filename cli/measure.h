// What two models take and how far apart their outputs are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "fourfold/module.h"
#include "output.h"

namespace cli {

// The bytes of the file that `save` makes of a model. It is written under `name` to a temporary folder, which
// is gone when this returns: an interrupt later leaves nothing behind.
std::uintmax_t file_bytes(const fourfold::ModuleTree& model, const std::string& name);
template <fourfold::Module M>
std::uintmax_t file_bytes(const M& model, const std::string& name) {
  return file_bytes(fourfold::module_tree(const_cast<M&>(model)), name);
}

struct Latencies {
  double first, second;  // microseconds, medians
};

// "3.75 times smaller", or "1.25 times larger" for 0.8.
std::string as_size_ratio(double times_smaller);

// "2.92 times faster", or "1.25 times slower" for 0.8.
std::string as_speedup(double times_faster);

// Both in turn for about two seconds, so that what else the machine does falls on both alike.
Latencies measure_in_turn(const std::function<void()>& first, const std::function<void()>& second);

struct Difference {
  double mean_expected, mean_actual;  // of absolute values
  double mean, largest;               // of the absolute difference
  double percent;                     // mean of mean_expected; NaN where that is 0
  double cosine;                      // between the two as vectors; NaN where one is 0
  double snr;                         // signal to noise in dB: infinite where they are equal
};

// Of two float32 tensors of one shape.
Difference difference(const fourfold::Tensor& expected, const fourfold::Tensor& actual);

}  // namespace cli
