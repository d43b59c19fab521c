#!/usr/bin/env python3
"""Compares build/examples/vad with the network in PyTorch, and with the Python package silero-vad.

For each recording: how far its probabilities of speech are from PyTorch's in float, without and with
quantization, and how many of its segments are those that silero-vad's get_speech_timestamps makes of
PyTorch's; the same for torch.ao's quantization, and for fourfold's in Python where it is installed. (Its
convolutions there are PyTorch's, whose last bits differ: a value between two steps of the quantization may
fall to either, so its probabilities are as near, not the same.) Then the time on one core, beside that of
silero-vad's ONNX files in onnxruntime. (Those have the same network with weights of a later date, so only
their time is compared.)

Exit status: 0; 1 where float probabilities are not PyTorch's within 1e-4 or float segments not the same,
int8 probabilities are further than 0.0015 on average or a segment's end by more than one frame, or where
get_speech_timestamps makes other segments of our probabilities; 2 where nothing could be compared.
"""

import argparse
import json
import statistics
import sys
import time
import warnings

try:
    import numpy as np
    import silero_vad
    import torch
    from safetensors.torch import load_file
except ImportError as error:  # --help works without them
    missing_module = error
else:
    missing_module = None
try:
    import fourfold
except ImportError:
    fourfold = None

from comparing import CannotCompare, add_arguments, load_evaluate, run_json

RATE, FRAME = 16000, 512
FLOAT_TOLERANCE = 1e-4
MEAN_TOLERANCE = 0.0015
# Options of vad, and what get_speech_timestamps calls them.
RULES = (
    {"threshold": 0.3},
    {"threshold": 0.8, "min_speech_duration_ms": 0},
    {"min_silence_duration_ms": 0, "speech_pad_ms": 0},
    {"min_silence_duration_ms": 0, "speech_pad_ms": 200},
    {"min_silence_duration_ms": 700, "min_speech_duration_ms": 1500},
)
OPTIONS = {
    "threshold": "--threshold",
    "min_speech_duration_ms": "--min-speech-ms",
    "min_silence_duration_ms": "--min-silence-ms",
    "speech_pad_ms": "--pad-ms",
}


def network(evaluate, folder):
    state = load_file(folder / "model.safetensors")
    state["final.weight"] = state.pop("final_conv.weight")[:, :, 0]
    state["final.bias"] = state.pop("final_conv.bias")
    model = evaluate.Silero()
    model.load_state_dict(state)
    return model.eval()


def quantized_in_python(model):
    """Name -> the network with its LSTM quantized."""
    with warnings.catch_warnings():  # torch.ao is deprecated
        warnings.simplefilter("ignore")
        quantize = torch.ao.quantization.quantize_dynamic
        networks = {"torch.ao int8": quantize(model, {torch.nn.LSTMCell}, dtype=torch.qint8)}
    if fourfold is not None:
        quantize = fourfold.quantize_dynamic
        networks["fourfold int8 in Python"] = quantize(model, {torch.nn.LSTMCell}, dtype=torch.qint8)
    return networks


def segments_of(probabilities, samples, **rules):
    """By silero-vad's own rules: (start, end) in samples."""
    speech = silero_vad.get_speech_timestamps_from_probs(
        [float(p) for p in probabilities], audio_length_samples=samples, **rules
    )
    return [(segment["start"], segment["end"]) for segment in speech]


def run_vad(binary, model, clip, *options):
    result = run_json([binary, model, clip, "--json", "--probabilities", *options])
    segments = [(round(s["start"] * RATE), round(s["end"] * RATE)) for s in result["segments"]]
    return np.array(result["probabilities"]), segments, result


def near(ours, theirs):
    """As many segments, each within a frame."""
    return len(ours) == len(theirs) and all(
        abs(a - b) <= FRAME for one, other in zip(ours, theirs) for a, b in zip(one, other)
    )


def compare(binary, model_path, clip, audio, float_model, others):
    """One row of the table. others: name -> a quantized network in PyTorch"""
    expected = float_model(audio).numpy()
    expected_segments = segments_of(expected, len(audio))

    def against_float(probabilities, segments):
        return {
            "max_difference": float(np.abs(probabilities - expected).max()),
            "mean_difference": float(np.abs(probabilities - expected).mean()),
            "segments_same": len(set(segments) & set(expected_segments)),
        }

    float32, float_segments, _ = run_vad(binary, model_path, clip, "--float32")
    int8, int8_segments, _ = run_vad(binary, model_path, clip)
    rules_same = int8_segments == segments_of(int8, len(audio))
    for rules in RULES:
        options = [part for key, value in rules.items() for part in (OPTIONS[key], value)]
        probabilities, segments, _ = run_vad(binary, model_path, clip, *options)
        rules_same &= segments == segments_of(probabilities, len(audio), **rules)
    row = {
        "clip": clip.name,
        "frames": len(expected),
        "segments": len(expected_segments),
        "vad float": against_float(float32, float_segments),
        "vad int8": against_float(int8, int8_segments),
        "rules_same": rules_same,
    }
    for name, model in others.items():
        probabilities = model(audio).numpy()
        row[name] = against_float(probabilities, segments_of(probabilities, len(audio)))
    row["passed"] = (
        row["vad float"]["max_difference"] <= FLOAT_TOLERANCE
        and float_segments == expected_segments
        and near(int8_segments, expected_segments)
        and rules_same
    )
    return row


def engines(binary, model_path, clip, audio):
    """Name -> a function that gives the seconds for all of the recording, on one core."""
    with warnings.catch_warnings():  # that one of the models is for 16 kHz alone
        warnings.simplefilter("ignore")
        package = silero_vad.load_silero_vad(onnx=True)
        sequence = silero_vad.load_silero_vad(sequence=True)
    frames = [audio[i : i + FRAME] for i in range(0, len(audio) - len(audio) % FRAME, FRAME)]
    inputs = {
        "input": np.zeros((1, 64 + FRAME), np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(RATE),
    }

    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def session_alone():
        for frame in frames:
            inputs["input"][0, 64:] = frame
            _, inputs["state"] = package.session.run(None, inputs)

    return {
        "silero-vad, frame by frame": lambda: seconds(lambda: [package(f, RATE) for f in frames]),
        "silero-vad, its session alone": lambda: seconds(session_alone),
        "silero-vad, 512 frames at once": lambda: seconds(lambda: sequence.audio_forward(audio.numpy())),
        "vad float": lambda: run_vad(binary, model_path, clip, "--float32")[2]["seconds"],
        "vad int8": lambda: run_vad(binary, model_path, clip)[2]["seconds"],
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, "build/examples/vad")
    parser.add_argument(
        "--rounds", type=int, default=15, help="of the measurement of time (default: %(default)s)"
    )
    args = parser.parse_args()
    if missing_module is not None:
        print(
            f"compare_vad: needs PyTorch 2.13, NumPy, safetensors, onnxruntime and silero-vad: {missing_module}",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(1)
    folder = args.models / "silero_vad"
    model_path = folder / "model.safetensors"
    rows = []
    try:
        evaluate = load_evaluate(args.models)
        float_model = network(evaluate, folder)
        others = quantized_in_python(float_model)
        with torch.no_grad():
            for clip in [*sorted((folder / "ami").glob("*.wav")), folder / "test.wav"]:
                audio = torch.tensor(evaluate.wav(clip))
                rows.append(compare(args.binary, model_path, clip, audio, float_model, others))
            measured = engines(args.binary, model_path, clip, audio)
            times = {name: [] for name in measured}
            for _ in range(args.rounds):
                for name, measure in measured.items():
                    times[name].append(measure())
    except CannotCompare as error:
        print(f"compare_vad: {error}", file=sys.stderr)
        return 2

    frames, segments = (sum(row[key] for row in rows) for key in ("frames", "segments"))
    networks = {
        name: {
            "max_difference": max(row[name]["max_difference"] for row in rows),
            "mean_difference": sum(row[name]["mean_difference"] * row["frames"] for row in rows) / frames,
            "segments_same": sum(row[name]["segments_same"] for row in rows),
        }
        for name in ("vad float", "vad int8", *others)
    }
    factors = {name: statistics.median(seconds) / (len(audio) / RATE) for name, seconds in times.items()}
    passed = networks["vad int8"]["mean_difference"] <= MEAN_TOLERANCE and all(row["passed"] for row in rows)
    if args.json:
        report = {"clips": rows, "networks": networks, "real_time_factors": factors, "passed": passed}
        print(json.dumps(report, indent=2))
        return 0 if passed else 1

    failed = [row["clip"] for row in rows if not row["passed"]]
    print(f"{len(rows)} recordings, {frames} frames, {segments} segments; beside PyTorch in float:")
    print(f"{'':23} {'max':>9} {'mean':>9} {'segments the same':>18}")
    for name, one in networks.items():
        same = f"{one['segments_same']} of {segments}"
        print(f"{name:23} {one['max_difference']:>9.2g} {one['mean_difference']:>9.2g} {same:>18}")
    print(f"\n{'on one core':31} {'real-time factor':>16}")
    for name, factor in factors.items():
        print(f"{name:31} {factor:>16.5f}")
    print("passed" if passed else f"FAILED: {', '.join(failed) or 'the mean'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
