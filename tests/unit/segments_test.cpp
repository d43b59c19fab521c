// The rules of examples/vad: from probabilities to segments. What is expected is what silero-vad's
// get_speech_timestamps gives; tests/torch/compare_vad.py compares with it on real audio.
#include "examples/vad/segments.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace vad {
namespace {

constexpr std::int64_t frame = 512;

// The segments of frames written as digits: '7' is a probability of 0.7. In samples.
std::vector<std::pair<std::int64_t, std::int64_t>> segments_of(const std::string& frames,
                                                               const SegmentRules& rules = {},
                                                               std::int64_t missing = 0) {
  SpeechSegments segments(rules, frame);
  for (const char digit : frames) segments.add(static_cast<float>(digit - '0') / 10);
  std::vector<std::pair<std::int64_t, std::int64_t>> result;
  for (const Segment& s : segments.finish(std::ssize(frames) * frame - missing))
    result.emplace_back(s.start, s.end);
  return result;
}

using Expected = std::vector<std::pair<std::int64_t, std::int64_t>>;
const std::string speech(10, '9'), silence(10, '0');

TEST(Segments, SilenceHasNone) {
  EXPECT_EQ(segments_of(""), Expected{});
  EXPECT_EQ(segments_of(silence + "444" + silence), Expected{});
}

TEST(Segments, ArePaddedWithinTheAudio) {
  EXPECT_EQ(segments_of(silence + speech + silence), (Expected{{10 * frame - 480, 20 * frame + 480}}));
  EXPECT_EQ(segments_of(speech), (Expected{{0, 10 * frame}}));
  EXPECT_EQ(segments_of(speech, {}, 100), (Expected{{0, 10 * frame - 100}}));
}

TEST(Segments, ShortOnesAreDropped) {
  EXPECT_EQ(segments_of(silence + "9999999" + silence), Expected{});  // 3584 samples
  EXPECT_EQ(segments_of(silence + "99999999" + silence).size(), 1U);  // 4096
  EXPECT_EQ(segments_of(silence + "9999999"), Expected{});
  EXPECT_EQ(segments_of(silence + "99999999", {.min_speech = 4096}), Expected{});  // must be longer
}

TEST(Segments, GoOnAboveTheLowerThreshold) {
  EXPECT_EQ(segments_of(speech + "4444444444" + speech).size(), 1U);
  EXPECT_EQ(segments_of(speech + "3333333333" + speech).size(), 2U);
  // 0.4 neither ends a pause nor is one.
  EXPECT_EQ(segments_of(speech + "34444" + silence), (Expected{{0, 10 * frame + 480}}));
}

TEST(Segments, ShortPausesArePartOfThem) {
  EXPECT_EQ(segments_of(speech + "0000" + speech).size(),
            1U);  // the fourth begins 1536 samples after the first
  EXPECT_EQ(segments_of(speech + "00000" + speech).size(), 2U);
  EXPECT_EQ(segments_of(speech + "0009000" + speech).size(), 1U);
}

TEST(Segments, PaddingMeetsInTheMiddle) {
  EXPECT_EQ(segments_of(speech + "00000" + speech, {.pad = 2000}),
            (Expected{{0, 10 * frame + 1280}, {15 * frame - 1280, 25 * frame}}));
  EXPECT_EQ(segments_of(speech + "0" + speech, {.min_silence = 0, .pad = 2000}),
            (Expected{{0, 10 * frame + 256}, {11 * frame - 256, 21 * frame}}));
}

TEST(Segments, LowThresholds) {
  // A frame may be speech and below the lower threshold, where no pause lasts longer than it.
  EXPECT_EQ(segments_of("1" + std::string(20, '0'), {.threshold = 0}), (Expected{{0, 21 * frame}}));
}

}  // namespace
}  // namespace vad
