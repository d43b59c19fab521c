#!/usr/bin/env python3
"""Compares fourfold's LSTM with PyTorch's on the recipe of dynamic quantization.

For each size, `dump_recipe` (C++) and torch draw inputs, state and weights from the same seed and
run a float LSTM on them. Ours is quantized as well, and so is torch's, by torch.ao: the table shows
how far each is from its float one, in percent of the mean magnitude.

Exit status: 0 where all weights have PyTorch's bits, inputs are within 5e-7 and float results within
2e-6; 1 where something is not; 2 where nothing could be compared.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
import warnings

try:
    import numpy as np
    import torch
    from safetensors.numpy import load_file
except ImportError as error:  # --help works without them
    missing_module = error
else:
    missing_module = None

from comparing import CannotCompare, run

INPUT_TOLERANCE = 5e-7
OUTPUT_TOLERANCE = 2e-6


@dataclasses.dataclass
class Size:
    dimension: int
    sequence: int
    batch: int
    depth: int
    seed: int
    input_size: int = 0  # 0: the dimension

    def __post_init__(self):
        self.input_size = self.input_size or self.dimension

    def text(self):
        return f"LSTM({self.input_size}, {self.dimension}) x {self.depth}"


# The first is the recipe's own.
SIZES = [
    Size(8, 20, 1, 1, 29592),
    Size(1, 3, 2, 1, 0),
    Size(80, 20, 1, 2, 1),
    Size(33, 15, 3, 1, 7),
    Size(31, 9, 5, 4, 5, 70),
    Size(128, 50, 4, 3, 123),
    Size(256, 30, 2, 2, 2**32 - 1, 65),
    Size(512, 10, 1, 1, 99),
]


def run_ours(binary, size, folder):
    path = folder / "recipe.safetensors"
    command = [binary, path]
    for field in dataclasses.fields(size):
        command += ["--" + field.name.replace("_", "-"), getattr(size, field.name)]
    run(command)
    return load_file(path)


def run_theirs(size):
    torch.manual_seed(size.seed)
    inputs = torch.randn(size.sequence, size.batch, size.input_size)
    state_shape = (size.depth, size.batch, size.dimension)
    hidden = (torch.randn(state_shape), torch.randn(state_shape))
    model = torch.nn.Sequential(torch.nn.LSTM(size.input_size, size.dimension, size.depth))
    with warnings.catch_warnings():  # torch.ao is deprecated
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.LSTM}, dtype=torch.qint8)
    with torch.no_grad():
        output, (h_n, c_n) = model[0](inputs, hidden)
        quantized_output, _ = quantized[0](inputs, hidden)
    tensors = dict(model[0].named_parameters())
    tensors |= {"input": inputs, "h0": hidden[0], "c0": hidden[1]}
    tensors |= {"output": output, "h_n": h_n, "c_n": c_n, "int8.output": quantized_output}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def worst_difference(ours, theirs, names):
    """Infinite where a shape differs or a value is NaN."""
    worst = 0.0
    for name in names:
        if ours[name].shape != theirs[name].shape:
            return float("inf")
        difference = float(np.abs(ours[name].astype(np.float64) - theirs[name]).max())
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def percent_of_float(tensors):
    expected = tensors["output"].astype(np.float64)
    return float(100 * np.abs(tensors["int8.output"] - expected).mean() / np.abs(expected).mean())


def compare(binary, size, folder):
    """One row of the table."""
    ours, theirs = run_ours(binary, size, folder), run_theirs(size)
    weights = [name for name in theirs if name.startswith(("weight", "bias"))]
    equal = sum(int((ours[name].view("u4") == theirs[name].view("u4")).sum()) for name in weights)
    row = {
        "size": dataclasses.asdict(size),
        "weights": sum(theirs[name].size for name in weights),
        "weights_bit_equal": equal,
        "input_difference": worst_difference(ours, theirs, ["input", "h0", "c0"]),
        "output_difference": worst_difference(ours, theirs, ["output", "h_n", "c_n"]),
        "mean_absolute_output": float(np.abs(ours["output"].astype(np.float64)).mean()),
        "int8_percent": percent_of_float(ours),
        "torch_ao_percent": percent_of_float(theirs),
    }
    row["passed"] = (
        equal == row["weights"]
        and row["input_difference"] <= INPUT_TOLERANCE
        and row["output_difference"] <= OUTPUT_TOLERANCE
    )
    return row


HEADER = (
    f"{'':22} {'T':>3} {'B':>2} {'weights':>9} {'bit-equal':>9} {'inputs':>8} {'outputs':>8}"
    f" {'mean |y|':>8} {'int8 %':>6} {'torch.ao %':>10}"
)


def print_row(size, row):
    print(
        f"{size.text():22} {size.sequence:>3} {size.batch:>2}"
        f" {row['weights']:>9} {row['weights_bit_equal']:>9}"
        f" {row['input_difference']:>8.1e} {row['output_difference']:>8.1e}"
        f" {row['mean_absolute_output']:>8.5f} {row['int8_percent']:>6.2f} {row['torch_ao_percent']:>10.2f}"
        f"{'' if row['passed'] else '  FAILED'}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--binary", type=pathlib.Path, default=pathlib.Path("build/dump_recipe"), help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    if missing_module is not None:
        print(f"compare_recipe: needs PyTorch 2.13, NumPy and safetensors: {missing_module}", file=sys.stderr)
        return 2
    if not args.binary.exists():
        print(
            f"compare_recipe: {args.binary} does not exist: `make release-test` builds it, or give --binary",
            file=sys.stderr,
        )
        return 2

    engine = torch.backends.quantized.engine
    if not args.json:
        print(f"PyTorch {torch.__version__}, engine {engine}; worst absolute differences\n{HEADER}")
    rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for size in SIZES:
                rows.append(compare(args.binary, size, pathlib.Path(folder)))
                if not args.json:
                    print_row(size, rows[-1])
    except CannotCompare as error:
        print(f"compare_recipe: {error}", file=sys.stderr)
        return 2
    passed = all(row["passed"] for row in rows)
    if args.json:
        report = {"torch": torch.__version__, "engine": engine, "passed": passed, "sizes": rows}
        print(json.dumps(report, indent=2))
    else:
        print(f"{sum(row['weights'] for row in rows)} weights; {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
