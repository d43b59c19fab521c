// From the probability of speech in each frame to segments of speech, by the rules of the Python package
// silero-vad (get_speech_timestamps, without a longest duration of speech).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace vad {

// A frame with at least `threshold` begins speech; one below `threshold - 0.15` may end it.
struct SegmentRules {
  double threshold = 0.5;
  std::int64_t min_speech = 4000;   // samples: shorter speech is dropped
  std::int64_t min_silence = 1600;  // samples: shorter silence is part of the speech around it
  std::int64_t pad = 480;           // samples that are added at both ends
};

struct Segment {
  std::int64_t start, end;  // samples
};

class SpeechSegments {
 public:
  SpeechSegments(const SegmentRules& rules, std::int64_t frame_size)
      : rules_(rules), frame_size_(frame_size) {}

  void add(float probability);  // of the next frame

  // All segments of the audio, which had `samples`; the last frame may have been only a part of one.
  std::vector<Segment> finish(std::int64_t samples);

 private:
  void close(std::int64_t end);

  SegmentRules rules_;
  std::int64_t frame_size_;
  std::int64_t now_ = 0;               // samples: where the next frame begins
  std::optional<std::int64_t> start_;  // of the speech that goes on
  std::optional<std::int64_t> pause_;  // in it: where the silence began that may be its end
  std::vector<Segment> segments_;      // not yet padded
};

}  // namespace vad
