#!/usr/bin/env python3
"""The command line as a user meets it: cli_test.py PATH_TO_FOURFOLD"""

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

FOURFOLD = ""
SUCCESS, FAILED, BAD_USAGE = 0, 1, 2


def run(*arguments, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [FOURFOLD, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


class Cli(unittest.TestCase):
    def refused(self, code, message, *arguments, **environment):
        result = run(*arguments, **environment)
        self.assertEqual(result.returncode, code, (arguments, result))
        self.assertIn(message, result.stdout + result.stderr, arguments)
        return result

    def test_demo_prints_the_five_steps(self):
        result = run("demo")
        self.assertEqual(result.returncode, SUCCESS, result.stderr)
        for text in (
            "1. Set up",
            "(lstm): LSTM(8, 8)",
            "(lstm): DynamicQuantizedLSTM(8, 8)",
            "times smaller",
            "4. Latency",
            "FP32 model is 0.12887",
        ):
            self.assertIn(text, result.stdout)
        self.assertNotIn("\033", result.stdout)

    def test_demo_figures(self):
        for dimension, smaller in ((8, 1.5), (80, 3.6), (512, 3.9)):
            result = json.loads(run("demo", "--dimension", dimension, "--sequence", 5, "--json").stdout)
            self.assertGreaterEqual(result["file_bytes"]["times_smaller"], smaller, dimension)
        recipe = json.loads(run("demo", "--json").stdout)
        self.assertAlmostEqual(recipe["mean_absolute"]["float32"], 0.12887, places=5)
        self.assertLessEqual(recipe["mean_absolute"]["percent"], 0.45)

    def test_results_do_not_depend_on_isa_or_threads(self):
        isas = [isa["name"] for isa in json.loads(run("isa", "--json").stdout)["isas"] if isa["supported"]]
        options = ("demo", "--dimension", 33, "--sequence", 7, "--depth", 2, "--json")
        results = [run(*options, "--isa", isa, "--threads", n).stdout for isa in isas for n in (1, 2)]
        figures = [json.loads(result)["mean_absolute"] for result in results]
        self.assertEqual(figures, [figures[0]] * len(figures))

    def test_demo_json(self):
        result = json.loads(run("demo", "--dimension", 16, "--depth", 2, "--seed", 3, "--json").stdout)
        sizes = {"dimension": 16, "sequence": 20, "batch": 1, "depth": 2, "seed": 3, "threads": 1}
        self.assertEqual({key: result[key] for key in sizes}, sizes)
        other = {"version", "cpu", "isa", "model", "file_bytes", "latency_us", "mean_absolute"}
        self.assertEqual(set(result), other | set(sizes))
        self.assertEqual(set(result["model"]), {"float32", "qint8"})
        self.assertEqual(set(result["file_bytes"]), {"float32", "qint8", "times_smaller"})
        self.assertEqual(set(result["latency_us"]), {"float32", "qint8", "times_faster"})
        self.assertEqual(set(result["mean_absolute"]), {"float32", "qint8", "difference", "percent"})
        self.assertGreater(result["latency_us"]["qint8"], 0)

    def test_demo_leaves_no_file(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(run("demo", TMPDIR=folder).returncode, SUCCESS)
            self.assertEqual(os.listdir(folder), [])

    def test_isa_marks_the_one_used(self):
        isas = json.loads(run("isa", "--json", FOURFOLD_ISA="scalar").stdout)["isas"]
        self.assertEqual(isas[-1], {"name": "scalar", "requires": "", "supported": True, "used": True})
        self.assertEqual([isa["used"] for isa in isas[:-1]], [False] * (len(isas) - 1))

    def test_inspect(self):
        layers = {"lstm": {"kind": "LSTM", "input_size": 3}}
        header = {
            "__metadata__": {"fourfold": json.dumps({"version": 1, "layers": layers})},
            "lstm.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "lstm.weight": {"dtype": "I8", "shape": [2, 3], "data_offsets": [8, 14]},
        }
        text = json.dumps(header).encode()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.safetensors"
            path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(14))
            result = run("inspect", path)
            self.assertEqual(result.returncode, SUCCESS, result.stderr)
            for line in ("2 tensors", "LSTM(input_size=3)", "lstm.weight  int8     [2, 3]", "int8: 6 bytes"):
                self.assertIn(line, result.stdout)
            self.assertNotIn("\033", result.stdout)
            result = json.loads(run("inspect", path, "--json").stdout)
        self.assertEqual(result["format"], "safetensors")
        self.assertEqual(result["file_bytes"], 8 + len(text) + 14)
        self.assertEqual(result["layers"], layers)
        tensor = {"name": "lstm.bias", "dtype": "float32", "shape": [2], "bytes": 8}
        self.assertEqual(result["tensors"][0], tensor)

    def test_nothing_is_printed_before_a_size_is_refused(self):
        for option in ("--dimension", "--sequence", "--batch", "--depth", "--threads"):
            result = run("demo", option, 0)
            self.assertEqual(result.stdout, "", option)
            self.assertIn(option, result.stderr)

    def test_help_has_examples(self):
        for verb in ("demo", "inspect", "isa"):
            result = run(verb, "--help")
            self.assertEqual(result.returncode, SUCCESS)
            self.assertIn("Examples:", result.stdout)
        self.assertEqual(run("--version").returncode, SUCCESS)

    def test_bad_usage(self):
        self.refused(BAD_USAGE, "no verb")
        self.refused(BAD_USAGE, "--nonsense", "--nonsense")
        self.refused(BAD_USAGE, "demo", "demo", "demo")
        self.refused(BAD_USAGE, "nonsense", "nonsense")
        self.refused(BAD_USAGE, "--nonsense", "demo", "--nonsense")
        self.refused(BAD_USAGE, "FILE", "inspect")
        for option in ("--dimension", "--sequence", "--batch", "--depth", "--threads"):
            for value in ("0", "-1", "x", "99999999999999999999", "1000000000000"):
                result = run("demo", option, value)
                self.assertEqual(result.returncode, BAD_USAGE, (option, value, result))
                self.assertTrue(result.stderr or result.stdout)

    def test_isa_that_is_not_there(self):
        self.refused(BAD_USAGE, "no instruction set 'mmx'", "demo", "--isa", "mmx")
        self.refused(BAD_USAGE, "FOURFOLD_ISA: no instruction set 'mmx'", "demo", FOURFOLD_ISA="mmx")
        for isa in json.loads(run("isa", "--json").stdout)["isas"]:
            if not isa["supported"]:
                self.refused(BAD_USAGE, "lacks avx", "demo", FOURFOLD_ISA=isa["name"])

    def test_files_that_are_not_models(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bad.safetensors"
            self.refused(FAILED, "bad.safetensors", "inspect", path)
            self.refused(FAILED, folder, "inspect", folder)
            tensor = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
            lies = {
                "too short": b"abc",
                "too long a header": struct.pack("<Q", 1 << 40) + b"{}",
                "truncated": struct.pack("<Q", 64) + json.dumps(tensor).encode().ljust(64) + b"1234",
                "overlap": struct.pack("<Q", 160)
                + json.dumps({**tensor, "b": tensor["a"]}).encode().ljust(160)
                + b"12345678",
                "lying shape": struct.pack("<Q", 80)
                + json.dumps({"a": {**tensor["a"], "shape": [3]}}).encode().ljust(80)
                + b"12345678",
            }
            for what, content in lies.items():
                with self.subTest(what):
                    path.write_bytes(content)
                    self.refused(FAILED, "bad.safetensors", "inspect", path)

    def test_nowhere_to_write(self):
        for arguments in (("isa",), ("isa", "--json"), ("demo", "--json"), ("--help",), ("--version",)):
            with open("/dev/full", "w") as full:
                result = run(*arguments, stdout=full)
            self.assertEqual(result.returncode, FAILED, arguments)
            self.assertIn("standard output", result.stderr)
        with tempfile.TemporaryDirectory() as folder:
            self.refused(FAILED, "nowhere", "demo", TMPDIR=f"{folder}/nowhere")
        self.refused(FAILED, "temporary folder /proc", "demo", TMPDIR="/proc")

    def test_interrupt_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "TMPDIR": folder}
            command = [FOURFOLD, "demo", "--dimension", "256", "--sequence", "100"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
                for line in demo.stdout:
                    if "times smaller" in line:
                        demo.send_signal(signal.SIGINT)  # it measures now, for two seconds
                        break
                demo.stdout.read()
            self.assertEqual(demo.returncode, -signal.SIGINT)
            self.assertEqual(os.listdir(folder), [])

    def test_full_disk_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            # A file may have 1 KiB here, which is what a disk that fills up looks like to the writer.
            script = "ulimit -f 1; trap '' XFSZ; exec \"$0\" demo"
            environment = {**os.environ, "TMPDIR": folder}
            command = ["bash", "-c", script, FOURFOLD]
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            self.assertEqual(result.returncode, FAILED, result)
            self.assertIn("float.safetensors", result.stderr)
            self.assertEqual(os.listdir(folder), [])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    FOURFOLD = sys.argv.pop()
    unittest.main()
