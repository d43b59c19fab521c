#!/usr/bin/env python3
"""Compares fourfold's random numbers with PyTorch's, value by value and bit by bit.

For each seed, a sequence of randn and uniform_ calls of mixed sizes is drawn from one generator by
`dump_random` (C++) and from one torch.Generator here. The seeds are a few fixed ones at the edges
and as many others as --seeds asks for; those and the sequences come from --grid-seed, which is
printed, so that a run can be repeated.

Exit status: 0 where every uniform value has PyTorch's bits and every normal value is within 5e-7
of PyTorch's; 1 where one is not; 2 where nothing could be compared. PyTorch must be 2.13 on an x86
machine with AVX2: its other builds and older versions draw other last bits.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import random
import sys

try:
    import numpy as np
    import torch
except ImportError as error:  # --help works without them
    missing_module = error
else:
    missing_module = None

from comparing import CannotCompare, run

NORMAL_TOLERANCE = 5e-7
EDGE_SEEDS = (0, 1, 29592, 2**32 - 1, 2**32, 1234567890123, 67280421310721, 2**64 - 1)
# Both ways of drawing normals (from 16 values on, the vector kernel), with every length of tail.
SHAPES = [(n,) for n in range(1, 68)] + [(1, 1, 8), (3, 5), (20, 1, 8), (4, 4, 4), (1000,), (64, 129), (0, 7)]
BOUNDS = [(0.0, 1.0), (-0.5, 0.5), (-0.1, 0.3), (5.0, 5.0), (1.0, 1.0 + 2**-22), (-1e30, 1e30), (0.0, 1e-40)]
# The initialization of LSTM and Linear layers, of 8 to 1024 units.
BOUNDS += [(-1 / math.sqrt(n), 1 / math.sqrt(n)) for n in (8, 10, 100, 512, 1024)]


@dataclasses.dataclass
class Count:
    """What a comparison of one kind of value found. `worst` is infinite where a value was NaN."""

    values: int = 0
    bit_equal: int = 0
    worst: float = 0.0

    def add(self, ours, theirs):
        self.values += ours.size
        self.bit_equal += int((ours.view(np.uint32) == theirs.view(np.uint32)).sum())
        if ours.size:
            difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
            self.worst = max(self.worst, float(np.where(np.isnan(difference), np.inf, difference).max()))

    def report(self):
        """For JSON, which has no infinity: null stands for it."""
        worst = self.worst if math.isfinite(self.worst) else None
        return {"values": self.values, "bit_equal": self.bit_equal, "worst_difference": worst}


def op_text(op):
    """The op as dump_random takes it: randn:2x3 or uniform:4x5:-0.5:0.5."""
    kind, shape, *bounds = op
    return ":".join([kind, "x".join(map(str, shape)), *map(repr, bounds)])


def draw_ours(binary, seed, ops):
    lines = run([binary, seed, *map(op_text, ops)]).splitlines()
    if len(lines) != len(ops):
        raise CannotCompare(f"{binary} printed {len(lines)} lines for {len(ops)} ops")
    bits = [np.frombuffer(bytes.fromhex(line), dtype=">u4") for line in lines]  # most significant digit first
    return [values.astype(np.uint32).view(np.float32) for values in bits]


def draw_theirs(seed, ops):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for kind, shape, *bounds in ops:
        if kind == "randn":
            tensors.append(torch.randn(shape, generator=generator))
        else:
            tensors.append(torch.empty(shape).uniform_(*bounds, generator=generator))
    return [tensor.numpy().ravel() for tensor in tensors]


def make_ops(rng):
    """Every shape as randn and as uniform_, in a random order, with random bounds."""

    def as_float32(pair):  # so that both sides round the same way: not at all
        return tuple(float(np.float32(x)) for x in pair)

    ops = [("randn", shape) for shape in SHAPES]
    ops += [("uniform", shape, *as_float32(rng.choice(BOUNDS))) for shape in SHAPES]
    rng.shuffle(ops)
    return ops


def compare(binary, grid_seed, num_seeds):
    """Counts by kind: uniform values, and normal values of tensors below 16 values and of others."""
    counts = {"uniform": Count(), "randn below 16": Count(), "randn from 16": Count()}
    rng = random.Random(grid_seed)
    seeds = list(EDGE_SEEDS) + [rng.getrandbits(64) for _ in range(num_seeds)]
    for seed in seeds:
        ops = make_ops(rng)
        for op, ours, theirs in zip(ops, draw_ours(binary, seed, ops), draw_theirs(seed, ops), strict=True):
            if ours.shape != theirs.shape:
                sizes = f"{ours.size} values, PyTorch has {theirs.size}"
                raise CannotCompare(f"seed {seed}, {op_text(op)}: {sizes}")
            if op[0] == "uniform":
                kind = "uniform"
            else:
                kind = "randn below 16" if ours.size < 16 else "randn from 16"
            counts[kind].add(ours, theirs)
    return len(seeds), counts


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--binary", type=pathlib.Path, default=pathlib.Path("build/dump_random"), help="default: %(default)s"
    )
    parser.add_argument("--seeds", type=int, default=200, help="random seeds to try (default: %(default)s)")
    parser.add_argument("--grid-seed", type=int, help="repeats a run (default: a new one each time)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    args = parser.parse_args()
    if args.seeds < 0:
        parser.error("--seeds cannot be negative")

    if missing_module is not None:
        print(f"compare_random: needs PyTorch 2.13 and NumPy: {missing_module}", file=sys.stderr)
        return 2

    grid_seed = random.SystemRandom().getrandbits(32) if args.grid_seed is None else args.grid_seed
    capability = torch.backends.cpu.get_cpu_capability()
    if not args.json:
        print(f"PyTorch {torch.__version__}, {capability}; --grid-seed {grid_seed}", flush=True)
    try:
        num_seeds, counts = compare(args.binary, grid_seed, args.seeds)
    except CannotCompare as error:
        print(f"compare_random: {error}", file=sys.stderr)
        return 2

    uniform = counts["uniform"]
    passed = uniform.bit_equal == uniform.values and all(
        count.worst <= NORMAL_TOLERANCE for kind, count in counts.items() if kind != "uniform"
    )
    if args.json:
        report = {
            "torch": torch.__version__,
            "cpu_capability": capability,
            "grid_seed": grid_seed,
            "seeds": num_seeds,
            "passed": passed,
            "counts": {kind: count.report() for kind, count in counts.items()},
        }
        print(json.dumps(report, indent=2))
    else:
        print(f"{num_seeds} seeds")
        for kind, count in counts.items():
            print(
                f"{kind:15} {count.values:>10} values, {count.bit_equal:>10} bit-equal, "
                f"worst difference {count.worst:.3g}"
            )
        print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
