#include "silero.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

namespace vad {
namespace {

using fourfold::StateDict;
using fourfold::Tensor;

constexpr std::int64_t fft_size = 256, fft_step = 128, frequencies = fft_size / 2 + 1;
constexpr std::int64_t window = 3;  // of the convolutions
constexpr std::int64_t lstm_size = 128;

const Tensor& tensor_of(const StateDict& tensors, const std::string& name) {
  const Tensor* tensor = fourfold::find_tensor(tensors, name);
  if (tensor == nullptr) throw fourfold::Error("no tensor '" + name + "'");
  return *tensor;
}

// The Linear layer that does the convolution `name`: weight [out, in, size] becomes [out, size * in].
fourfold::Linear convolution(const StateDict& tensors, const std::string& name, std::int64_t out,
                             std::int64_t in, std::int64_t size, bool bias = true) {
  const Tensor& weight = tensor_of(tensors, name + ".weight");
  if (weight.shape() != std::vector<std::int64_t>{out, in, size} ||
      weight.dtype() != fourfold::DType::float32)
    throw fourfold::Error(name + ".weight is " + std::string(fourfold::dtype_name(weight.dtype())) + " " +
                          fourfold::shape_text(weight.shape()) + ", not float32 " +
                          fourfold::shape_text(std::array{out, in, size}));
  Tensor rows({out, size * in});
  for (std::int64_t n = 0; n < out; ++n)
    for (std::int64_t c = 0; c < in; ++c)
      for (std::int64_t k = 0; k < size; ++k)
        rows.data<float>()[(n * size + k) * in + c] = weight.data<float>()[(n * in + c) * size + k];
  StateDict state{{"weight", std::move(rows)}};
  if (bias) state.push_back({"bias", tensor_of(tensors, name + ".bias")});
  return {{.in_features = size * in, .out_features = out, .bias = bias}, state};
}

// The tensors of the module `name`, by their names in it.
StateDict part_of(const StateDict& tensors, const std::string& name) {
  StateDict part;
  for (const auto& [full_name, tensor] : tensors)
    if (full_name.starts_with(name + ".")) part.push_back({full_name.substr(name.size() + 1), tensor});
  return part;
}

// Every `stride`-th window of `size` rows of x [time, channels], with `padding` rows of zeros at both ends:
// [windows, size * channels].
Tensor windows(const Tensor& x, std::int64_t size, std::int64_t stride, std::int64_t padding) {
  const std::int64_t time = x.size(0), channels = x.size(1);
  Tensor result({(time + 2 * padding - size) / stride + 1, size * channels});
  for (std::int64_t i = 0; i < result.size(0); ++i) {
    const std::int64_t from = i * stride - padding, begin = std::max<std::int64_t>(from, 0);
    const std::int64_t end = std::min(from + size, time);
    std::copy(x.data<float>() + begin * channels, x.data<float>() + end * channels,
              result.data<float>() + (i * size + begin - from) * channels);
  }
  return result;
}

Tensor magnitudes(const Tensor& spectrum) {  // [time, 2 * frequencies] -> [time, frequencies]
  Tensor result({spectrum.size(0), frequencies});
  for (std::int64_t t = 0; t < spectrum.size(0); ++t) {
    const float* real = spectrum.data<float>() + t * 2 * frequencies;
    const float* imaginary = real + frequencies;
    float* magnitude = result.data<float>() + t * frequencies;
    for (std::int64_t f = 0; f < frequencies; ++f)
      magnitude[f] = std::sqrt(real[f] * real[f] + imaginary[f] * imaginary[f]);
  }
  return result;
}

}  // namespace

Silero::Silero(const StateDict& tensors)
    : stft_conv(convolution(tensors, "stft_conv", 2 * frequencies, 1, fft_size, false)),
      conv1(convolution(tensors, "conv1", 128, frequencies, window)),
      conv2(convolution(tensors, "conv2", 64, 128, window)),
      conv3(convolution(tensors, "conv3", 64, 64, window)),
      conv4(convolution(tensors, "conv4", lstm_size, 64, window)),
      lstm_cell({.input_size = lstm_size, .hidden_size = lstm_size}, part_of(tensors, "lstm_cell")),
      final_conv(convolution(tensors, "final_conv", 1, lstm_size, 1)) {}

Silero load_silero(const std::filesystem::path& path) {
  const StateDict tensors = fourfold::state_dict(fourfold::load(path));
  try {
    return Silero(tensors);
  } catch (const fourfold::Error& error) {
    throw fourfold::Error(path.string() + ": not the network of silero-vad: " + error.what());
  }
}

float Stream::next(std::span<const float, frame_size> frame) {
  // The last samples of the frame before, the frame, and its own last ones mirrored.
  constexpr std::size_t seen = context_size + frame_size;
  Tensor signal({seen + context_size, 1});
  float* samples = signal.data<float>();
  std::ranges::copy(context_, samples);
  std::ranges::copy(frame, samples + context_size);
  std::reverse_copy(samples + seen - 1 - context_size, samples + seen - 1, samples + seen);
  std::ranges::copy(frame.last<context_size>(), context_.begin());

  constexpr fourfold::ReLU relu;
  Tensor x = magnitudes(model_.stft_conv(windows(signal, fft_size, fft_step, 0)));  // [4, 129]
  x = relu(model_.conv1(windows(x, window, 1, 1)));                                 // [4, 128]
  x = relu(model_.conv2(windows(x, window, 2, 1)));                                 // [2, 64]
  x = relu(model_.conv3(windows(x, window, 2, 1)));                                 // [1, 64]
  x = relu(model_.conv4(windows(x, window, 1, 1)));                                 // [1, 128]

  Tensor h({1, lstm_size});
  model_.lstm_cell.step(lstm_, {x.data<float>(), lstm_size}, {h.data<float>(), lstm_size});
  return fourfold::Sigmoid()(model_.final_conv(relu(h))).data<float>()[0];
}

}  // namespace vad
