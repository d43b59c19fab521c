// The network of silero-vad for 16 kHz: a short-time Fourier transform and four convolutions, an LSTM cell,
// one unit. It takes 32 ms of audio at a time and gives the probability that there is speech in them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "fourfold/fourfold.h"

namespace vad {

constexpr std::size_t sample_rate = 16000;
constexpr std::size_t frame_size = 512;   // samples
constexpr std::size_t context_size = 64;  // samples of the frame before, which the network sees too

// A convolution in time is a Linear layer on windows of consecutive rows, [window * channels] each.
struct Silero {
  explicit Silero(const fourfold::StateDict& tensors);
  void children(auto&& visit) {
    visit("stft_conv", stft_conv);
    visit("conv1", conv1), visit("conv2", conv2), visit("conv3", conv3), visit("conv4", conv4);
    visit("lstm_cell", lstm_cell);
    visit("final_conv", final_conv);
  }

  fourfold::Linear stft_conv;  // 256 samples -> the real and the imaginary parts of 129 frequencies
  fourfold::Linear conv1, conv2, conv3, conv4;
  fourfold::LstmCell lstm_cell;
  fourfold::Linear final_conv;
};

// From safetensors with the names of silero-vad's silero_vad_16k.safetensors, or the same quantized. Throws
// fourfold::Error.
Silero load_silero(const std::filesystem::path& path);

// One stream of audio.
class Stream {
 public:
  explicit Stream(const Silero& model) : model_(model), lstm_(model.lstm_cell), context_(context_size) {}

  // The probability of speech in the next frame: samples from -1 to 1. NaN where they are not finite.
  float next(std::span<const float, frame_size> frame);

 private:
  const Silero& model_;
  fourfold::StreamState lstm_;
  std::vector<float> context_;
};

}  // namespace vad
