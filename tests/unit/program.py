"""What the tests of a program share. They are run as TEST [EMULATOR OPTIONS...] PATH_TO_PROGRAM."""

import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unittest

if len(sys.argv) < 2:
    sys.exit(f"usage: {sys.argv[0]} [EMULATOR OPTIONS...] PATH_TO_PROGRAM")
PROGRAM = sys.argv[1:]  # behind what runs it
del sys.argv[1:]  # the rest of the command line is for unittest
SUCCESS, FAILED, BAD_USAGE = 0, 1, 2


def run(*arguments, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        timeout=120 if len(PROGRAM) == 1 else 1800,  # an emulator takes some twenty times as long
    )


def write_safetensors(path, tensors, **metadata):
    """tensors: name -> (dtype, shape, bytes)"""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def floats(seed, *shape):
    """A tensor of values between -1 and 1, for write_safetensors"""
    numbers = random.Random(seed)
    values = [numbers.uniform(-1, 1) for _ in range(math.prod(shape))]
    return "F32", list(shape), struct.pack(f"<{len(values)}f", *values)


def with_int8_weights(tensors):
    """The same with each matrix in int8: zeros, and scales of 1."""
    result = {}
    for name, (dtype, shape, content) in tensors.items():
        if "weight" in name and len(shape) == 2:
            result[name] = "I8", shape, bytes(shape[0] * shape[1])
            result[f"{name}_scale"] = "F32", shape[:1], struct.pack("<f", 1) * shape[0]
        else:
            result[name] = dtype, shape, content
    return result


def lstm_tensors(prefix="", inputs=6, hidden=40, suffix="_l0"):
    rows = 4 * hidden
    shapes = {
        "weight_ih": (rows, inputs),
        "weight_hh": (rows, hidden),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
    }
    return {f"{prefix}{name}{suffix}": floats(name, *shape) for name, shape in shapes.items()}


class Test(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def ok(self, *arguments, **environment):
        result = run(*arguments, **environment)
        self.assertEqual(result.returncode, SUCCESS, (arguments, result))
        self.assertEqual(result.stderr, "")
        return result.stdout

    def refused(self, code, message, *arguments, **environment):
        result = run(*arguments, **environment)
        self.assertEqual(result.returncode, code, (arguments, result))
        self.assertIn(message, result.stdout + result.stderr, arguments)
        return result

    def model_folder(self, name):
        """That of a trained model, which is not in this repository; the test is skipped where it is missing."""
        beside = pathlib.Path(__file__).resolve().parents[3] / "shared" / "models"
        folder = pathlib.Path(os.environ.get("FOURFOLD_MODELS", beside)) / name
        if not folder.exists():
            self.skipTest(f"no model: looked for {folder}; FOURFOLD_MODELS names another folder of models")
        return folder
