#!/usr/bin/env python3
"""examples/vad as a user meets it: vad_test.py [EMULATOR OPTIONS...] PATH_TO_VAD"""

import json
import math
import struct
import unittest

from program import BAD_USAGE, FAILED, Test, floats, lstm_tensors, run, with_int8_weights, write_safetensors


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(samples, code="h", channels=1, rate=16000, before=b""):
    """Samples of the struct code h (16 bits), B (8 bits) or f, as a WAV file"""
    size = struct.calcsize(code)
    kind = 3 if code == "f" else 1
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * size * channels, size * channels, 8 * size)
    data = chunk(b"data", struct.pack(f"<{len(samples)}{code}", *samples))
    return chunk(b"RIFF", b"WAVE" + before + chunk(b"fmt ", header) + data)


def area_under_curve(scores, labels):
    """Of the receiver operating characteristic: how often speech scores above silence"""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    positive = sum(labels)
    ranks = sum(rank for rank, i in enumerate(order) if labels[i])
    return (ranks - positive * (positive - 1) / 2) / (positive * (len(labels) - positive))


class Trained(Test):
    """silero-vad on half-minute clips of meetings, in which people have marked who speaks when"""

    def setUp(self):
        super().setUp()
        self.silero = self.model_folder("silero_vad")

    def find_speech(self, clip, *options):
        arguments = (self.silero / "model.safetensors", clip, "--json", "--probabilities", *options)
        return json.loads(self.ok(*arguments))

    def test_figures(self):
        speech = {}
        for rttm in (self.silero / "ami").glob("*.rttm"):
            for line in rttm.read_text().splitlines():
                field = line.split()
                span = (float(field[3]), float(field[3]) + float(field[4]))
                speech.setdefault(field[1].replace("ñ", "n"), []).append(span)
        float32, qint8, labels = [], [], []
        segments = same = 0
        for name, spans in sorted(speech.items()):
            clip = self.silero / "ami" / f"{name}.wav"
            expected, actual = self.find_speech(clip, "--float32"), self.find_speech(clip)
            float32 += expected["probabilities"]
            qint8 += actual["probabilities"]
            times = [(i + 0.5) * 0.032 for i in range(len(actual["probabilities"]))]
            labels += [any(a <= t < b for a, b in spans) for t in times]
            # A probability near the threshold may fall on its other side: a segment ends a frame away.
            self.assertEqual(len(expected["segments"]), len(actual["segments"]), name)
            segments += len(actual["segments"])
            for one, other in zip(expected["segments"], actual["segments"]):
                same += one == other
                self.assertAlmostEqual(one["start"], other["start"], delta=0.0321)
                self.assertAlmostEqual(one["end"], other["end"], delta=0.0321)
        apart = sum(abs(a - b) for a, b in zip(float32, qint8)) / len(qint8)
        areas = area_under_curve(float32, labels), area_under_curve(qint8, labels)
        print(f"area under the curve: float {areas[0]:.4f}, int8 {areas[1]:.4f}")
        print(f"probabilities {apart:.5f} apart; {same} of {segments} segments the same")
        self.assertAlmostEqual(areas[0], 0.9624, delta=0.0001)  # PyTorch's in float
        self.assertAlmostEqual(areas[1], areas[0], delta=0.0005)
        self.assertLessEqual(apart, 0.0015)
        self.assertGreaterEqual(same, 0.95 * segments)

    def test_table(self):
        text = self.ok(self.silero / "model.safetensors", self.silero / "test.wav")
        self.assertIn("segments of speech in 60.000 s", text)
        self.assertIn("real-time factor", text)


class Untrained(Test):
    """A network of random weights, and files of all kinds"""

    def setUp(self):
        super().setUp()
        self.model, self.wav = self.folder / "model.safetensors", self.folder / "speech.wav"
        self.tensors = {
            "stft_conv.weight": floats(0, 258, 1, 256),
            **{
                f"conv{i}.{name}": floats(i, *shape)
                for i, (rows, inputs) in enumerate(((128, 129), (64, 128), (64, 64), (128, 64)), 1)
                for name, shape in (("weight", (rows, inputs, 3)), ("bias", (rows,)))
            },
            **lstm_tensors("lstm_cell.", 128, 128, ""),
            "final_conv.weight": floats(6, 1, 128, 1),
            "final_conv.bias": floats(7, 1),
        }
        write_safetensors(self.model, self.tensors)
        self.samples = [round(8000 * math.sin(i * i / 3000)) for i in range(1300)]

    def probabilities(self, content, *options):
        self.wav.write_bytes(content)
        return json.loads(self.ok(self.model, self.wav, "--json", "--probabilities", *options))

    def test_wav_files(self):
        result = self.probabilities(wav(self.samples))
        self.assertEqual(result["audio_seconds"], 1300 / 16000)
        self.assertEqual(len(result["probabilities"]), 3)  # the last frame is filled with silence
        filled = self.probabilities(wav(self.samples + [0] * (3 * 512 - 1300)))
        self.assertEqual(filled["probabilities"], result["probabilities"])
        as_float = self.probabilities(wav([x / 32768 for x in self.samples], "f"))
        self.assertEqual(as_float["probabilities"], result["probabilities"])
        with_title = self.probabilities(wav(self.samples, before=chunk(b"LIST", b"INFO of odd size.")))
        self.assertEqual(with_title["probabilities"], result["probabilities"])

    def refuses(self, content, message):
        self.wav.write_bytes(content)
        self.refused(FAILED, f"speech.wav: {message}", self.model, self.wav)

    def test_wav_files_refused(self):
        good = wav(self.samples)
        for what, content, message in (
            ("empty", b"", "not a WAV file"),
            ("text", b"This is no sound at all.", "not a WAV file"),
            ("big-endian", b"RIFX" + good[4:], "not a WAV file"),
            ("stereo", wav(self.samples, channels=2), "2 channels; one was expected"),
            ("no channel", wav(self.samples, channels=0), "0 channels"),
            ("44.1 kHz", wav(self.samples, rate=44100), "44100 samples a second; 16000 were expected"),
            ("8 bits", wav([128] * 512, "B"), "samples of 8 bits in format 1; 16 bits"),
            ("64-bit float", good[:20] + b"\3\0" + good[22:34] + b"\x40\0" + good[36:], "samples of 64 bits"),
            (
                "no format",
                chunk(b"RIFF", b"WAVE" + chunk(b"data", bytes(64))),
                "its samples come before their format",
            ),
            ("short format", chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", bytes(14))), "its format has 14 bytes"),
            ("half a sample", good[:40] + struct.pack("<I", 2599) + good[44:], "2599 bytes of samples"),
            ("no sample", wav([]), "no samples"),
            ("no data", good[:36], "it ends before its header says"),
            ("truncated", good[:-1], "it ends before its header says"),
            ("lying", good[:40] + struct.pack("<I", 0xFFFFFFFE) + good[44:], "it ends before its header"),
            (
                "lying chunk",
                wav(self.samples, before=b"LIST\xff\xff\xff\xff"),
                "it ends before its header says",
            ),
            ("not finite", wav([0.0] * 600 + [math.nan], "f"), "samples at 0.032 s are not finite"),
            ("infinite", wav([math.inf], "f"), "samples at 0.000 s are not finite"),
            (
                "too large",
                wav([3e38, -3e38] * 256, "f"),
                "samples at 0.000 s are not finite, or far too large",
            ),
        ):
            with self.subTest(what):
                self.refuses(content, message)
        for end in range(0, 44):
            self.refuses(good[:end], "not a WAV file" if end < 12 else "it ends before its header says")
        self.wav.unlink()
        self.refused(FAILED, "speech.wav: No such file", self.model, self.wav)
        self.refused(FAILED, "Is a directory", self.model, self.folder)

    def test_a_model_that_gives_no_numbers_is_not_the_wav_files_fault(self):
        self.wav.write_bytes(wav(self.samples))
        _, shape, content = self.tensors["conv1.bias"]
        bias = struct.pack("<f", math.nan) + content[4:]
        write_safetensors(self.model, {**self.tensors, "conv1.bias": ("F32", shape, bias)})
        self.refused(FAILED, "model.safetensors: gives no number at 0.000 s of", self.model, self.wav)

    def test_models_refused(self):
        self.wav.write_bytes(wav(self.samples))
        self.refused(FAILED, "nowhere", self.folder / "nowhere", self.wav)
        self.refused(FAILED, "speech.wav", self.wav, self.wav)
        for name in self.tensors:
            with self.subTest(name):
                write_safetensors(self.model, {n: t for n, t in self.tensors.items() if n != name})
                self.refused(FAILED, "not the network of silero-vad", self.model, self.wav)
                write_safetensors(self.model, {**self.tensors, name: floats(0, 5, 5)})
                self.refused(FAILED, "not the network of silero-vad", self.model, self.wav)

    def test_int8_models(self):
        self.wav.write_bytes(wav(self.samples))
        lstm = {name: tensor for name, tensor in self.tensors.items() if name.startswith("lstm_cell.")}
        write_safetensors(self.model, {**self.tensors, **with_int8_weights(lstm)})
        self.ok(self.model, self.wav)
        self.refused(FAILED, "--float32 cannot undo it", self.model, self.wav, "--float32")

    def test_usage(self):
        self.wav.write_bytes(wav(self.samples))
        self.refused(BAD_USAGE, "MODEL")
        self.refused(BAD_USAGE, "WAV", self.model)
        self.refused(BAD_USAGE, "--json", self.model, self.wav, "--probabilities")
        for option, values in (
            ("--threshold", ("-0.1", "1.1", "nan", "x")),
            ("--min-speech-ms", ("-1", "x", "1.5", "99999999999")),
            ("--min-silence-ms", ("-1",)),
            ("--pad-ms", ("-1",)),
        ):
            for value in values:
                self.refused(BAD_USAGE, option, self.model, self.wav, option, value)
        self.assertIn("Examples:", self.ok("--help"))
        for json_or_table in ((), ("--json",)):
            with open("/dev/full", "w") as full:
                result = run(self.model, self.wav, *json_or_table, stdout=full)
            self.assertEqual(result.returncode, FAILED)
            self.assertIn("standard output", result.stderr)


if __name__ == "__main__":
    unittest.main()
