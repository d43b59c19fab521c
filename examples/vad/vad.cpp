// vad: finds speech in a WAV file with silero-vad's network, 32 ms at a time, its LSTM quantized.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "cli/output.h"
#include "cli/program.h"
#include "segments.h"
#include "silero.h"
#include "wav.h"

namespace {

using cli::Json;

constexpr std::int64_t samples_per_ms = vad::sample_rate / 1000;
constexpr float largest_sample = 1e6;  // of any recording, whose samples are up to 1

struct Options {
  std::string model, wav;
  double threshold = 0.5;
  std::int64_t min_speech_ms = 250, min_silence_ms = 100, pad_ms = 30;
  bool float32 = false, probabilities = false, json = false;
};

struct Result {
  std::int64_t samples = 0;
  std::vector<float> probabilities;  // of each frame
  std::vector<vad::Segment> segments;
  double seconds = 0;  // in the network
  double audio_seconds() const { return static_cast<double>(samples) / vad::sample_rate; }
  double real_time_factor() const { return seconds / audio_seconds(); }
};

Result find_speech(const vad::Silero& model, const Options& o) {
  std::ifstream file = cli::open_file(o.wav);
  vad::WavReader wav(file, o.wav, vad::sample_rate);
  if (wav.samples_left() == 0) throw fourfold::Error(o.wav + ": no samples");
  vad::Stream stream(model);
  vad::SpeechSegments segments({.threshold = o.threshold,
                                .min_speech = o.min_speech_ms * samples_per_ms,
                                .min_silence = o.min_silence_ms * samples_per_ms,
                                .pad = o.pad_ms * samples_per_ms},
                               vad::frame_size);
  Result result;
  std::chrono::duration<double> time{};
  std::array<float, vad::frame_size> frame{};
  while (wav.samples_left() != 0) {
    const auto count = static_cast<std::int64_t>(wav.read(frame));
    const auto start = std::chrono::steady_clock::now();
    const float probability = stream.next(frame);
    segments.add(probability);
    time += std::chrono::steady_clock::now() - start;
    if (std::isnan(probability)) {
      if (std::ranges::all_of(frame, [](float x) { return std::abs(x) < largest_sample; }))
        throw fourfold::Error(
            fmt::format("{}: gives no number at {:.3f} s of {}: its weights are not finite, or far too large",
                        o.model, result.audio_seconds(), o.wav));
      throw fourfold::Error(fmt::format("{}: samples at {:.3f} s are not finite, or far too large", o.wav,
                                        result.audio_seconds()));
    }
    result.probabilities.push_back(probability);
    result.samples += count;
  }
  result.segments = segments.finish(result.samples);
  result.seconds = time.count();
  return result;
}

double in_seconds(std::int64_t samples) { return static_cast<double>(samples) / vad::sample_rate; }

void print_json(const Result& r, const Options& o) {
  Json segments = Json::array();
  for (const vad::Segment& segment : r.segments)
    segments.push_back({{"start", in_seconds(segment.start)}, {"end", in_seconds(segment.end)}});
  Json json = {{"model", o.model},
               {"wav", o.wav},
               {"audio_seconds", r.audio_seconds()},
               {"segments", std::move(segments)},
               {"seconds", r.seconds},
               {"real_time_factor", r.real_time_factor()},
               {"isa", fourfold::current_isa()}};
  if (o.probabilities) json["probabilities"] = r.probabilities;
  cli::print_json(json);
}

void print_text(const Result& r, const Options& o) {
  std::vector<std::vector<std::string>> rows;
  for (const vad::Segment& segment : r.segments)
    rows.push_back(
        {fmt::format("{:.3f}", in_seconds(segment.start)), fmt::format("{:.3f}", in_seconds(segment.end))});
  cli::print_table({"start", "end"}, rows, {0, 1});
  fmt::print("\n{}: {} of speech in {:.3f} s\n", cli::printable(o.wav),
             cli::counted(r.segments.size(), "segment"), r.audio_seconds());
  fmt::print("{:.4f} s in the network, one core, {}: real-time factor {:.5f}\n", r.seconds,
             fourfold::current_isa(), r.real_time_factor());
  cli::flush_output();
}

int run(const Options& o) {
  fourfold::set_num_threads(1);
  vad::Silero model = vad::load_silero(o.model);
  if (o.float32 && model.lstm_cell.dtype() != fourfold::DType::float32)
    throw fourfold::Error(fmt::format("{}: is quantized already, and --float32 cannot undo it", o.model));
  if (!o.float32) model = fourfold::quantize_dynamic(model, {fourfold::Kind::lstm_cell});
  const Result result = find_speech(model, o);
  o.json ? print_json(result, o) : print_text(result, o);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Finds speech in a WAV file with silero-vad's network, its LSTM in int8", "vad"};
  app.footer(
      "Examples:\n"
      "  vad silero_vad_16k.safetensors meeting.wav\n"
      "  vad silero_vad_16k.safetensors meeting.wav --threshold 0.7 --min-silence-ms 500\n"
      "  vad silero_vad_16k.safetensors meeting.wav --json --probabilities");
  const auto milliseconds = [&](const char* name, std::int64_t& value, const char* what) {
    cli::add_number(app, name, value, std::int64_t{0}, std::int64_t{3'600'000}, what);
  };
  cli::add_text(app, "MODEL", options.model, "",
                "silero_vad_16k.safetensors of the Python package silero-vad")
      ->required();
  cli::add_text(app, "WAV", options.wav, "", "One channel, 16,000 samples a second, 16-bit or 32-bit float")
      ->required();
  cli::add_number(app, "--threshold", options.threshold, 0.0, 1.0,
                  "Probability from which on a frame is speech");
  milliseconds("--min-speech-ms", options.min_speech_ms, "Shorter speech is dropped");
  milliseconds("--min-silence-ms", options.min_silence_ms, "Shorter silence does not end speech");
  milliseconds("--pad-ms", options.pad_ms, "Added to both ends of speech");
  app.add_flag("--float32", options.float32, "Leave the LSTM as it is, to compare");
  app.add_flag("--json", options.json, "Print JSON");
  app.add_flag("--probabilities", options.probabilities, "In the JSON, the probability of each frame too")
      ->needs("--json");
  return cli::run_program(app, argc, argv, [&] { return run(options); });
}
