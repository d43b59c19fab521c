#!/usr/bin/env python3
"""The command line as a user meets it: cli_test.py [EMULATOR OPTIONS...] PATH_TO_FOURFOLD"""

import json
import math
import os
import pathlib
import pty
import random
import signal
import struct
import subprocess
import tempfile
import unittest

from program import (
    BAD_USAGE,
    FAILED,
    PROGRAM,
    SUCCESS,
    Test,
    floats,
    lstm_tensors,
    run,
    write_safetensors,
)


def write_npy(path, shape, values):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}".ljust(117) + "\n"
    content = struct.pack(f"<{len(values)}f", *values)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content)


def read_npy(path):
    content = path.read_bytes()
    start = 10 + struct.unpack("<H", content[8:10])[0]
    shape = eval(content[10:start])["shape"]  # our own output
    return shape, struct.unpack(f"<{math.prod(shape)}f", content[start:])


class Cli(Test):
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
        other = {"version", "cpu", "isa", "model", "file_bytes", "latency_us", "step_us", "mean_absolute"}
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
        lstm = {"kind": "LSTM", "input_size": 3, "hidden_size": 2, "bidirectional": True}
        children = {"lstm": lstm, "act": {"kind": "Sequential", "children": {"0": {"kind": "ReLU"}}}}
        model = {"kind": "Module", "type": "Tagger", "children": children}
        tensors = {"lstm.bias": ("F32", [2], bytes(8)), "lstm.weight": ("I8", [2, 3], bytes(6))}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.safetensors"
            write_safetensors(path, tensors, fourfold=json.dumps({"version": 1, "model": model}))
            result = run("inspect", path)
            self.assertEqual(result.returncode, SUCCESS, result.stderr)
            for line in (
                "2 tensors",
                "lstm   LSTM(input_size=3, hidden_size=2, bidirectional=true)",
                "act.0  ReLU()",
                "lstm.weight  int8     [2, 3]",
                "int8: 6 bytes",
            ):
                self.assertIn(line, result.stdout)
            self.assertNotIn("\033", result.stdout)
            result = json.loads(run("inspect", path, "--json").stdout)
            size = path.stat().st_size
        self.assertEqual(result["format"], "safetensors")
        self.assertEqual(result["file_bytes"], size)
        self.assertEqual(result["layers"], {"lstm": lstm, "act.0": {"kind": "ReLU"}})
        tensor = {"name": "lstm.bias", "dtype": "float32", "shape": [2], "bytes": 8}
        self.assertEqual(result["tensors"][0], tensor)

    def test_inspect_without_a_description(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.safetensors"
            for description, trouble in (
                ("{", "is no JSON object with a version"),
                ('{"version": 7}', "is of version 7"),
                ("[" * 100_000, "nested too deep"),
            ):
                write_safetensors(path, {"a\033[2J": ("F32", [1], bytes(4))}, fourfold=description)
                result = run("inspect", path)
                self.assertEqual(result.returncode, SUCCESS, result.stderr)
                self.assertIn(trouble, result.stdout)
                self.assertIn("a?[2J", result.stdout)  # a name cannot clear the terminal
                self.assertIn(trouble, json.loads(run("inspect", path, "--json").stdout)["trouble"])
            write_safetensors(path, {"a": ("F32", [1], bytes(4))})
            result = json.loads(run("inspect", path, "--json").stdout)
            self.assertIsNone(result["layers"])
            self.assertNotIn("trouble", result)

    def test_inspect_hostile_names(self):
        names = ("a" * 1_000_000 + ".end", "é" * 61, "line\nbreak\ttab", "\u202etxt.exe", "\x9b2J", "é" * 60)
        path = self.folder / "model.safetensors"
        layers = {"x" * 500: {"kind": "LSTM", "input_size": "y" * 5000}}
        description = {"version": 1, "model": {"kind": "Module", "children": layers}}
        write_safetensors(
            path, {name: ("F32", [1], bytes(4)) for name in names}, fourfold=json.dumps(description)
        )
        text = self.ok("inspect", path)
        self.assertLessEqual(max(map(len, text.splitlines())), 60 + 2 + 200)
        for shown in ("a" * 39 + "…" + "a" * 16 + ".end  float32", "line?break?tab ", "?txt.exe ", "?2J "):
            self.assertIn(shown, text)
        self.assertIn("é" * 39 + "…" + "é" * 20 + "  float32", text)
        self.assertIn("é" * 60 + "  float32", text)
        self.assertIn('input_size="yyy', text)

    def test_pickles_are_named(self):
        for name, content in (
            ("model.pt", b"PK\3\4"),
            ("model.safetensors", b"PK\3\4"),
            ("old.pth", b"\x80\2}"),
        ):
            path = self.folder / name
            path.write_bytes(content + bytes(100))
            for arguments in (("inspect", path), ("quantize", path, "-o", self.folder / "y.safetensors")):
                self.refused(FAILED, f"{name}: a PyTorch pickle", *arguments)
                self.refused(FAILED, "safetensors.torch.save_file(model.state_dict()", *arguments)

    def test_nothing_is_printed_before_a_size_is_refused(self):
        for option in ("--dimension", "--sequence", "--batch", "--depth", "--threads"):
            result = run("demo", option, 0)
            self.assertEqual(result.stdout, "", option)
            self.assertIn(option, result.stderr)

    def test_help_has_examples(self):
        for verb in ("demo", "inspect", "quantize", "run", "compare", "isa"):
            result = run(verb, "--help")
            self.assertEqual(result.returncode, SUCCESS)
            self.assertIn("Examples:", result.stdout)
            self.assertNotRegex(result.stdout, "TEXT|INT|FLOAT|POSITIVE")
        self.assertEqual(run("--version").returncode, SUCCESS)

    def test_bad_usage(self):
        self.refused(BAD_USAGE, "no command is given")
        self.refused(BAD_USAGE, "no command 'quantise'; did you mean 'quantize'?", "quantise", "x")
        self.refused(BAD_USAGE, "no option '--nonsense' before a command", "--nonsense", "demo")
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
        self.refused(BAD_USAGE, "--isa: no instruction set 'mmx'", "demo", "--isa", "mmx")
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
            command = [*PROGRAM, "demo", "--dimension", "256", "--sequence", "100"]
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
            script = 'ulimit -f 1; trap \'\' XFSZ; exec "$0" "$@"'
            environment = {**os.environ, "TMPDIR": folder}
            command = ["bash", "-c", script, *PROGRAM, "demo"]
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            self.assertEqual(result.returncode, FAILED, result)
            self.assertIn("float.safetensors", result.stderr)
            self.assertEqual(os.listdir(folder), [])


class Models(Test):
    """quantize, run and compare, on a checkpoint of a tagger and one of an LSTM alone"""

    def setUp(self):
        super().setUp()
        self.tagger, self.lstm = self.folder / "tagger.safetensors", self.folder / "lstm.safetensors"
        tensors = {
            "emb.weight": floats(1, 50, 6),
            **lstm_tensors("encoder.lstm."),
            "decoder.weight": floats(2, 5, 40),
            "decoder.bias": floats(3, 5),
            "norm.weight": floats(4, 40),
        }
        write_safetensors(self.tagger, tensors)
        write_safetensors(self.lstm, lstm_tensors())
        self.input = self.folder / "x.npy"
        numbers = random.Random(5)
        write_npy(self.input, (7, 3, 6), [numbers.gauss(0, 1) for _ in range(7 * 3 * 6)])
        self.output, self.y = self.folder / "int8.safetensors", self.folder / "y.npy"

    def quantize(self, *arguments, model=None):
        return json.loads(self.ok("quantize", model or self.tagger, "-o", self.output, "--json", *arguments))

    def dtypes(self, *arguments):
        return {t["name"]: t["dtype"]["after"] for t in self.quantize(*arguments)["tensors"]}

    def test_quantize_reports_every_tensor(self):
        before = self.tagger.read_bytes()
        result = self.quantize()
        self.assertEqual(self.tagger.read_bytes(), before)
        tensors = {tensor.pop("name"): tensor for tensor in result["tensors"]}
        self.assertEqual(len(tensors), 8)
        # 160 rows of 40, then with a scale each.
        weight = tensors["encoder.lstm.weight_hh_l0"]
        self.assertEqual(weight["layer"], "encoder.lstm")
        self.assertEqual(weight["kind"], "LSTM")
        self.assertEqual(weight["dtype"], {"before": "float32", "after": "int8"})
        self.assertEqual(weight["bytes"], {"before": 4 * 160 * 40, "after": 160 * 40 + 4 * 160})
        self.assertIsNone(weight["reason"])
        self.assertEqual(tensors["decoder.bias"]["reason"], "a bias")
        self.assertEqual(tensors["norm.weight"]["kind"], None)
        self.assertIn("no layer", tensors["norm.weight"]["reason"])
        self.assertIn("matrix without bias", tensors["emb.weight"]["reason"])
        self.assertEqual(result["quantized"], 3)
        sizes = result["file_bytes"]
        self.assertEqual(sizes["before"], len(before))
        self.assertEqual(sizes["after"], self.output.stat().st_size)
        self.assertAlmostEqual(sizes["times_smaller"], sizes["before"] / sizes["after"])
        for when in ("before", "after"):
            total = sum(tensor["bytes"][when] for tensor in tensors.values())
            self.assertEqual(result["tensor_bytes"][when], total)

        text = self.ok("quantize", self.tagger, "-o", self.output)
        for line in (
            "decoder.weight             decoder       Linear  float32 -> int8     800 -> 220",
            "decoder.bias               decoder       Linear  float32                     20  a bias",
            "3 of 8 tensors quantized",
            "times smaller",
        ):
            self.assertIn(line, text)
        layers = json.loads(self.ok("inspect", self.output, "--json"))["layers"]
        self.assertEqual(layers["encoder.lstm"], {"kind": "LSTM", "input_size": 6, "hidden_size": 40})
        again = self.quantize(model=self.output)  # the file that it is about to write
        self.assertEqual(again["quantized"], 0)
        reasons = {tensor["reason"] for tensor in again["tensors"] if tensor["kind"]}
        self.assertEqual(reasons, {"is qint8 already"})

    def test_quantize_what_is_named(self):
        weights = ("emb.weight", "encoder.lstm.weight_ih_l0", "decoder.weight")
        for arguments, dtypes in (
            ((), ("float32", "int8", "int8")),
            (("--embedding", "emb"), ("int8", "int8", "int8")),
            (("--embedding", "e*", "--leave", "enc*"), ("int8", "float32", "int8")),
            (("--only", "encoder"), ("float32", "int8", "float32")),
            (("--only", "*.lstm", "--only", "d?coder"), ("float32", "int8", "int8")),
            (("--only", "*", "--leave", "decoder"), ("float32", "int8", "float32")),
            (("--only", "*", "--embedding", "emb", "--dtype", "float16"), ("float16", "float16", "float16")),
            (("--linear", "emb", "--only", "emb"), ("int8", "float32", "float32")),
        ):
            with self.subTest(arguments):
                after = self.dtypes(*arguments)
                self.assertEqual(tuple(after[name] for name in weights), dtypes)
        self.quantize("--batch-first", "--embedding", "emb")
        layers = json.loads(self.ok("inspect", self.output, "--json"))["layers"]
        self.assertEqual(layers["encoder.lstm"]["batch_first"], True)
        self.assertEqual(layers["emb"], {"kind": "Embedding", "num_embeddings": 50, "embedding_dim": 6})

        rnn = {"weight_ih": floats(1, 4, 3), "weight_hh": floats(2, 4, 4)}
        write_safetensors(self.lstm, rnn)
        self.quantize("--nonlinearity", "relu", model=self.lstm)
        layers = json.loads(self.ok("inspect", self.output, "--json"))["layers"]
        wanted = {"kind": "RNNCell", "input_size": 3, "hidden_size": 4, "bias": False, "nonlinearity": "relu"}
        self.assertEqual(layers, {"": wanted})

    def test_quantize_in_place(self):
        size = self.tagger.stat().st_size
        self.ok("quantize", self.tagger, "-o", self.tagger)
        self.assertLess(self.tagger.stat().st_size, size)
        self.assertEqual(len(os.listdir(self.folder)), 3)

    def test_quantize_bad_usage(self):
        quantize = ("quantize", self.tagger, "-o", self.output)
        for message, *arguments in (
            ("--output is required", *quantize[:2]),
            ("IN is required", "quantize", "-o", self.output),
            ("--dtype", *quantize, "--dtype", "int4"),
            ("--nonlinearity", *quantize, "--nonlinearity", "gelu"),
            ("did you mean 'encoder.lstm'?", *quantize, "--only", "encoder.ltsm"),
            ("--leave 'decodr' fits no module", *quantize, "--leave", "decodr"),
            ("did you mean 'decoder'?", *quantize, "--leave", "decodr"),
            ("linear 'em' fits no module with a matrix", *quantize, "--linear", "em"),
            ("did you mean 'emb'?", *quantize, "--embedding", "embb"),
            ("no layer of the model matches", *quantize, "--only", "norm"),
            (
                "extension must name a format to write (.safetensors)\n",
                *quantize[:3],
                self.folder / "model.zip",
            ),
        ):
            self.refused(BAD_USAGE, message, *arguments)
            self.assertFalse(self.output.exists(), arguments)
        self.ok(*quantize)
        for option in (("--linear", "emb"), ("--batch-first",), ("--nonlinearity", "tanh")):
            self.refused(BAD_USAGE, "says itself", "quantize", self.output, "-o", self.y, *option)

    def test_quantize_what_is_quantized(self):
        self.ok("quantize", self.lstm, "-o", self.output)
        text = self.ok("quantize", self.output, "-o", self.folder / "again.safetensors")
        self.assertIn("nothing was left to quantize: the layers are as they were", text)
        self.assertEqual((self.folder / "again.safetensors").read_bytes(), self.output.read_bytes())

    def test_what_grows_is_larger(self):
        small = self.folder / "small.safetensors"
        write_safetensors(small, {"a.weight": floats(1, 1, 1), "a.bias": floats(2, 1)})
        text = self.ok("quantize", small, "-o", self.output)
        times = self.output.stat().st_size / small.stat().st_size
        self.assertGreater(times, 1)
        self.assertIn(f"{times:.2f} times larger than {small.stat().st_size} bytes", text)
        self.assertIn("1 of 2 tensors quantized", text)
        one = self.folder / "one.safetensors"
        write_safetensors(one, {"a": floats(1, 2)})
        self.assertIn("bytes, 1 tensor\n", self.ok("inspect", one))

    def test_quantize_through_a_link(self):
        link, target = self.folder / "link.safetensors", self.folder / "elsewhere" / "int8.safetensors"
        target.parent.mkdir()
        link.symlink_to("elsewhere/int8.safetensors")
        for _ in range(2):  # to no file yet, and to one
            self.ok("quantize", self.lstm, "-o", link)
            self.assertTrue(link.is_symlink() and target.exists())
            self.assertEqual(os.listdir(target.parent), ["int8.safetensors"])

    def test_quantize_what_float32_cannot_hold(self):
        double = self.folder / "double.safetensors"
        weight = ("F64", [1, 2], struct.pack("<2d", 1, -1e300))
        write_safetensors(double, {"a.weight": weight, "a.bias": floats(1, 1)})
        self.refused(
            FAILED,
            "a.weight: has -1e+300, which is too large for float32",
            "quantize",
            double,
            "-o",
            self.output,
        )
        self.assertFalse(self.output.exists())

    def test_quantize_bad_files(self):
        nothing = self.folder / "nothing.safetensors"
        quantize = ("quantize", nothing, "-o", self.output)
        self.refused(FAILED, "No such file", *quantize)
        write_safetensors(nothing, {})
        self.refused(FAILED, "there are none", *quantize)
        write_safetensors(nothing, {"conv.weight": floats(1, 2, 2, 2)})
        self.refused(FAILED, "no layer is known by its tensors (conv.weight: ", *quantize)
        write_safetensors(nothing, {"w": floats(1, 2)}, fourfold='{"version": 9}')
        self.refused(FAILED, "is of version 9", *quantize)
        weight = struct.pack("<2f", math.nan, 1)
        write_safetensors(nothing, {"a.weight": ("F32", [1, 2], weight), "a.bias": floats(1, 1)})
        self.refused(FAILED, "a.weight[0, 0] is NaN", *quantize)
        self.assertFalse(self.output.exists())
        self.refused(FAILED, "nowhere", "quantize", self.tagger, "-o", self.folder / "nowhere/a.safetensors")

    def test_full_disk_leaves_the_former_file(self):
        self.output.write_bytes(b"former")
        script = 'ulimit -f 1; trap \'\' XFSZ; exec "$0" "$@"'
        command = ["bash", "-c", script, *PROGRAM, "quantize", self.tagger, "-o", self.output]
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(result.returncode, FAILED, result)
        self.assertIn("int8.safetensors", result.stderr)
        self.assertEqual(self.output.read_bytes(), b"former")
        self.assertEqual(len(os.listdir(self.folder)), 4)

    def test_run(self):
        self.assertEqual(
            self.ok("run", self.lstm, "--input", self.input, "-o", self.y), f"{self.y}: float32 [7, 3, 40]\n"
        )
        shape, full = read_npy(self.y)
        self.assertEqual(shape, (7, 3, 40))
        self.assertTrue(0.01 < max(map(abs, full)) <= 1)
        # The same weights as a part of another model.
        part = ("run", self.tagger, "--module", "encoder.lstm", "--input", self.input, "-o", self.y)
        self.ok(*part)
        self.assertEqual(read_npy(self.y), (shape, full))
        result = json.loads(self.ok(*part, "--lengths", "7,2,5", "--json"))
        self.assertEqual(result["output"], {"path": str(self.y), "dtype": "float32", "shape": [7, 3, 40]})
        _, short = read_npy(self.y)
        for t in range(7):
            for b, length in enumerate((7, 2, 5)):
                row = slice((t * 3 + b) * 40, (t * 3 + b + 1) * 40)
                self.assertEqual(short[row], full[row] if t < length else (0,) * 40, (t, b))
        self.ok("run", self.lstm, "--batch-first", "--input", self.input, "-o", self.y)
        self.assertNotEqual(read_npy(self.y)[1], full)
        self.ok("quantize", self.tagger, "-o", self.output)
        self.ok("run", self.output, "--module", "encoder.lstm", "--input", self.input, "-o", self.y)
        self.assertLess(max(abs(a - b) for a, b in zip(read_npy(self.y)[1], full)), 0.05)

    def test_run_bad_usage(self):
        end = ("--input", self.input, "-o", self.y)
        for message, *arguments in (
            ("MODEL is required", *end),
            ("--input is required", self.lstm, "-o", self.y),
            ("--output is required", self.lstm, "--input", self.input),
            ("the model is a module of its author's own", self.tagger, *end),
            ("'encoder' is a module of its author's own", self.tagger, "--module", "encoder", *end),
            ("did you mean 'encoder.lstm'?", self.tagger, "--module", "encoder.lst", *end),
            ("has no module named 'x'", self.lstm, "--module", "x", *end),
            ("must end with .npy", self.lstm, "--input", self.input, "-o", self.output),
            ("must be in_features, 40", self.tagger, "--module", "decoder", *end),
            (f"{self.tagger} on {self.input}: Linear: ", self.tagger, "--module", "decoder", *end),
            ("one entry for each of the 3", self.lstm, "--lengths", "7,2", *end),
            ("lengths[1] must be from 1 to 7", self.lstm, "--lengths", "7,8,1", *end),
            ("--lengths: 'x' is no length", self.lstm, "--lengths", "7,x,1", *end),
            ("--lengths", self.lstm, "--lengths", "0,7,7", *end),
            ("lengths are for sequences", self.tagger, "--module", "decoder", "--lengths", "1,1,1", *end),
        ):
            self.refused(BAD_USAGE, message, "run", *arguments)
            self.assertFalse(self.y.exists(), arguments)
        self.refused(FAILED, "x.npz", "run", self.lstm, "--input", self.folder / "x.npz", "-o", self.y)
        self.refused(FAILED, "lstm.safetensors", "run", self.lstm, "--input", self.lstm, "-o", self.y)
        self.refused(FAILED, "none", "run", self.folder / "none", "--input", self.input, "-o", self.y)

    def test_compare(self):
        self.ok("quantize", self.lstm, "-o", self.output)
        models = (self.lstm, self.output, "--input", self.input)
        result = json.loads(self.ok("compare", *models, "--json"))
        self.assertEqual(result["file_bytes"]["before"], self.lstm.stat().st_size)
        self.assertGreater(result["file_bytes"]["times_smaller"], 2)
        self.assertGreater(result["latency_us"]["after"], 0)
        self.assertEqual(result["dtype"], {"before": "float32", "after": "int8"})
        self.assertEqual([output["name"] for output in result["outputs"]], ["output", "h", "c"])
        for output in result["outputs"]:
            self.assertTrue(0 < output["percent"] < 3, output)
            self.assertTrue(0.999 < output["cosine"] < 1, output)
            self.assertTrue(30 < output["snr_db"] < 60, output)
            self.assertLess(output["mean_difference"], output["max_difference"])

        # What it says of the differences is what the outputs say.
        self.ok("run", self.lstm, "--input", self.input, "-o", self.y)
        _, a = read_npy(self.y)
        self.ok("run", self.output, "--input", self.input, "-o", self.y)
        _, b = read_npy(self.y)
        differences = [abs(x - y) for x, y in zip(a, b)]
        self.assertAlmostEqual(result["outputs"][0]["mean_difference"], sum(differences) / len(a), places=9)
        self.assertAlmostEqual(result["outputs"][0]["max_difference"], max(differences), places=9)
        percent = 100 * sum(differences) / sum(map(abs, a))
        self.assertAlmostEqual(result["outputs"][0]["percent"], percent, places=6)
        noise = sum(x * x for x in a) / sum(d * d for d in differences)
        self.assertAlmostEqual(result["outputs"][0]["snr_db"], 10 * math.log10(noise), places=4)

        text = self.ok("compare", *models, "--threads", 2, "--lengths", "7,1,2")
        for part in ("latency, 2 threads", "times smaller", "cosine", " dB", "\nc "):
            self.assertIn(part, text)
        self.assertRegex(text, r"\d times (faster|slower)")
        self.assertNotIn("\033", text)

    def test_layers_of_a_checkpoint_can_be_named(self):
        """What tensors cannot tell is said on the command line, of those files that do not say it."""
        rnn, values = self.folder / "rnn.safetensors", [0.5] * 12
        write_safetensors(
            rnn,
            {
                "rnn.weight_ih_l0": floats(1, 40, 3),
                "rnn.weight_hh_l0": floats(2, 40, 40),
                "out.weight": floats(3, 5, 40),
            },
        )
        write_npy(self.input, (2, 2, 3), values)
        part = ("--module", "rnn", "--input", self.input)
        relu = ("--nonlinearity", "relu")
        self.ok("run", rnn, *part, "-o", self.y)
        tanh_output = read_npy(self.y)[1]
        self.ok("run", rnn, *part, *relu, "-o", self.y)
        relu_output = read_npy(self.y)[1]
        self.assertTrue(max(map(abs, tanh_output)) < 1 < max(relu_output))
        self.assertEqual(min(relu_output), 0)

        self.ok("quantize", rnn, *relu, "--linear", "out", "-o", self.output)
        models = ("compare", rnn, self.output, *part)
        self.assertLess(json.loads(self.ok(*models, *relu, "--json"))["outputs"][0]["percent"], 3)
        self.assertGreater(json.loads(self.ok(*models, "--json"))["outputs"][0]["percent"], 30)
        write_npy(self.input, (1, 40), [0.1] * 40)
        out = ("--module", "out", "--input", self.input)
        self.refused(BAD_USAGE, "author's own", "compare", rnn, self.output, *out)
        result = json.loads(self.ok("compare", rnn, self.output, *out, "--linear", "out", "--json"))
        self.assertLess(result["outputs"][0]["percent"], 3)
        for option in (relu, ("--linear", "out"), ("--embedding", "out"), ("--batch-first",)):
            self.refused(BAD_USAGE, "says itself", "run", self.output, *part, "-o", self.y, *option)
            self.refused(BAD_USAGE, "says itself", "compare", self.output, self.output, *part, *option)

    def test_quantize_other_floats(self):
        """A checkpoint in half or double precision is quantized as one in single."""
        single = self.quantize(model=self.lstm)["tensors"]
        expected = self.output.read_bytes()
        tensors = lstm_tensors()
        half, double = self.folder / "half.safetensors", self.folder / "double.safetensors"
        for path, dtype, code in ((half, "F16", "e"), (double, "F64", "d")):
            converted = {}
            for name, (_, shape, content) in tensors.items():
                values = struct.unpack(f"<{len(content) // 4}f", content)
                converted[name] = (dtype, shape, struct.pack(f"<{len(values)}{code}", *values))
            write_safetensors(path, converted)
        result = self.quantize(model=double)
        self.assertEqual(self.output.read_bytes(), expected)
        for before, after in zip(single, result["tensors"]):
            self.assertEqual(after["bytes"]["before"], 2 * before["bytes"]["before"])
            self.assertEqual(after["dtype"], {"before": "float64", "after": before["dtype"]["after"]})
            self.assertEqual(after["reason"], before["reason"])
        result = self.quantize(model=half)
        self.assertEqual(len(self.output.read_bytes()), len(expected))
        self.assertEqual(result["quantized"], 2)
        self.assertEqual({t["dtype"]["before"] for t in result["tensors"]}, {"float16"})
        output = json.loads(self.ok("compare", half, self.output, "--input", self.input, "--json"))
        self.assertEqual(output["dtype"], {"before": "float32", "after": "int8"})
        self.assertLess(output["outputs"][0]["percent"], 3)

    def test_compare_names_dtypes(self):
        self.ok("quantize", self.lstm, "--dtype", "float16", "-o", self.output)
        text = self.ok("compare", self.lstm, self.output, "--input", self.input)
        self.assertRegex(text.splitlines()[0], r"^ +float32 +float16$")
        self.assertIn("mean |float32|", text)
        text = self.ok("compare", self.output, self.lstm, "--input", self.input)
        self.assertRegex(text.splitlines()[0], r"^ +float16 +float32$")

    def test_compare_with_itself(self):
        result = json.loads(self.ok("compare", self.lstm, self.lstm, "--input", self.input, "--json"))
        output = result["outputs"][0]
        self.assertEqual((output["mean_difference"], output["max_difference"], output["percent"]), (0, 0, 0))
        self.assertAlmostEqual(output["cosine"], 1)
        self.assertIsNone(output["snr_db"])  # infinite

    def test_compare_bad_usage(self):
        end = ("--input", self.input)
        other = self.folder / "other.safetensors"
        write_safetensors(other, lstm_tensors(hidden=8))
        for message, *arguments in (
            ("AFTER is required", self.lstm, *end),
            ("module of its author's own", self.tagger, self.tagger, *end),
            ("module of its author's own", self.lstm, self.tagger, *end),
            ("not one model", self.lstm, other, *end),
            ("--threads", self.lstm, self.lstm, *end, "--threads", 0),
        ):
            self.refused(BAD_USAGE, message, "compare", *arguments)
        self.refused(FAILED, "No such file", "compare", self.lstm, self.folder / "none", *end)

    def test_colour_and_progress_only_on_a_terminal(self):
        self.ok("quantize", self.lstm, "-o", self.output)

        def on_a_terminal(*arguments, **environment):
            ours, theirs = pty.openpty()
            environment = {**os.environ, **environment}
            command = [*PROGRAM, *map(str, arguments)]
            process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
            os.close(theirs)
            text = b""
            try:
                while part := os.read(ours, 65536):
                    text += part
            except OSError:
                pass  # Linux's end of a terminal
            os.close(ours)
            self.assertEqual(process.wait(), SUCCESS, text)
            return text.decode()

        quantize = ("quantize", self.lstm, "-o", self.output)
        self.assertIn("\033[1mtensor", on_a_terminal(*quantize, NO_COLOR=""))
        self.assertNotIn("\033", on_a_terminal(*quantize, NO_COLOR="1"))
        write_npy(self.input, (1000, 8, 6), [0.5] * (1000 * 8 * 6))  # long enough for a bar
        text = on_a_terminal("compare", self.lstm, self.output, "--input", self.input, NO_COLOR="1")
        self.assertIn("\rmeasuring [", text)
        self.assertIn("\r\033[K", text)  # and it is gone in the end

    def test_nowhere_to_write_reports(self):
        self.ok("quantize", self.lstm, "-o", self.output)
        for arguments in (
            ("quantize", self.lstm, "-o", self.output),
            ("quantize", self.lstm, "-o", self.output, "--json"),
            ("run", self.lstm, "--input", self.input, "-o", self.y),
            ("compare", self.lstm, self.output, "--input", self.input, "--json"),
        ):
            with open("/dev/full", "w") as full:
                result = run(*arguments, stdout=full)
            self.assertEqual(result.returncode, FAILED, arguments)
            self.assertIn("standard output", result.stderr)


if __name__ == "__main__":
    unittest.main()
