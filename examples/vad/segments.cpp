#include "segments.h"

#include <algorithm>
#include <utility>

namespace vad {

void SpeechSegments::add(float probability) {
  const double p = probability;
  const double low = std::max(rules_.threshold - 0.15, 0.01);
  const std::int64_t now = std::exchange(now_, now_ + frame_size_);
  if (p >= rules_.threshold) {
    pause_.reset();
    if (!start_) {
      start_ = now;
      return;
    }
  }
  if (p < low && start_) {
    if (!pause_) pause_ = now;
    if (now - *pause_ >= rules_.min_silence) close(*pause_);
  }
}

void SpeechSegments::close(std::int64_t end) {
  if (end - *start_ > rules_.min_speech) segments_.push_back({*start_, end});
  start_.reset();
  pause_.reset();
}

std::vector<Segment> SpeechSegments::finish(std::int64_t samples) {
  if (start_) close(samples);
  // Between segments too close for the padding of both, each takes half.
  std::vector<Segment> padded = segments_;
  for (std::size_t i = 0; i < padded.size(); ++i) {
    const bool first = i == 0, last = i + 1 == padded.size();
    const std::int64_t before = first ? 2 * rules_.pad : segments_[i].start - segments_[i - 1].end;
    const std::int64_t after = last ? 2 * rules_.pad : segments_[i + 1].start - segments_[i].end;
    padded[i].start = std::max<std::int64_t>(0, segments_[i].start - std::min(rules_.pad, before / 2));
    padded[i].end = std::min(samples, segments_[i].end + std::min(rules_.pad, after / 2));
  }
  return padded;
}

}  // namespace vad
