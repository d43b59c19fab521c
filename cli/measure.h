// What two models take and how far apart their outputs are.
#pragma once

#include <functional>
#include <string>

#include "fourfold/tensor.h"
#include "output.h"

namespace cli {

struct Latencies {
  double first, second;  // microseconds, medians
};

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
