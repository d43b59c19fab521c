"""fourfold beside its peers, in one process and one run: medians, and the ratio to the best peer.

    python bench/compare.py --limits build-bench/bench/limits --native build-bench/bench/native --json bench.json

Every row's engines take turns, so that what else the machine does hits all alike. Ratios above 1 are in our favour.
The same layer called from C++ comes after them; where it is measured, the share of the limit is its.
"""

import argparse
import importlib.metadata
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import engines
import numpy as np
import torch
from rows import ROWS, Row

from fourfold.timing import time_in_turns


def relative_error(expected: np.ndarray, actual) -> float:
    actual = np.asarray(actual).reshape(expected.shape)
    return float(np.abs(actual - expected).mean() / np.abs(expected).mean())


def output_of(command: list) -> dict:
    return json.loads(
        subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    )


def limit_microseconds(row: Row, program: Path | None) -> float | None:
    """The larger of: all multiplications at the multiplier's peak; all recurrent weights streamed once a step."""
    if program is None:
        return None
    limits = output_of([program])
    multiply = row.multiplications / limits["multiplications_per_second"]
    fits = [entry for entry in limits["streams"] if entry["bytes"] >= row.recurrent_bytes]
    rate = (fits[0] if fits else limits["streams"][-1])["bytes_per_second"]
    return 1e6 * max(multiply, row.streamed_bytes / rate)


def native_microseconds(row: Row, program: Path | None) -> float | None:
    """The same layer called from C++, on one thread."""
    if program is None or row.kind == "Linear":
        return None
    options = ["--num-layers", row.num_layers, "--steps", row.steps, "--batch", row.batch, "--seconds", 0.5]
    command = [program, row.kind, row.input_size, row.hidden_size, *options]
    command += ["--bidirectional"] if row.bidirectional else []
    return output_of(command)["microseconds"]


def measure(row: Row, threads: int, seconds: float, limits: Path | None, native: Path | None) -> dict:
    torch.set_num_threads(threads)
    module, x = engines.make_module(row), engines.make_input(row)
    runs = {}
    for name, make in (engines.OURS | engines.PEERS).items():
        run = make(module, row, x, threads)
        if run is not None:
            runs[name] = run
    expected = np.asarray(runs["torch fp32"]())
    errors = {name: relative_error(expected, run()) for name, run in runs.items()}
    for name, error in errors.items():
        if not error < 0.2:  # a peer that computes something else would be no baseline
            raise SystemExit(f"{row.name}: {name} is {100 * error:.0f} percent off torch")
    if threads == 1:
        times = time_in_turns(runs, seconds)
    else:
        times = time_in_turns(runs, seconds, rounds=3, pause=0.25)
    peers = {name: times[name] for name in engines.PEERS if name in times}
    best = min(peers, key=peers.get)
    # One right after the other: the clock and the neighbours change within a run of all rows.
    limit = limit_microseconds(row, limits) if threads == 1 else None
    in_cpp = native_microseconds(row, native) if threads == 1 else None
    return {
        "row": row.name,
        "kind": row.kind,
        "threads": threads,
        "microseconds": times,
        "microseconds_in_cpp": in_cpp,
        "microseconds_at_the_limit": limit,
        "errors": errors,
        "best_peer": best,
        "ratio": peers[best] / times["fourfold int8"],
        "ratio_to_torch_ao": times["torch.ao int8"] / times["fourfold int8"],
        "float_ratio_to_torch": times["torch fp32"] / times["fourfold fp32"],
        "target": row.target,
        "share_of_limit": limit / (in_cpp or times["fourfold int8"]) if limit else None,
    }


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(results: list[dict]) -> list[dict]:
    means = []
    for threads in sorted({r["threads"] for r in results}):
        for kind in ("LSTM", "GRU", "Linear"):
            of_kind = [r for r in results if r["kind"] == kind and r["threads"] == threads]
            if of_kind:
                means.append(
                    {
                        "kind": kind,
                        "threads": threads,
                        "ratio": geometric_mean([r["ratio"] for r in of_kind]),
                        "ratio_to_torch_ao": geometric_mean([r["ratio_to_torch_ao"] for r in of_kind]),
                        "rows_behind_the_best_peer": [r["row"] for r in of_kind if r["ratio"] < 1],
                        "rows_below_target": [r["row"] for r in of_kind if r["ratio"] < r["target"]],
                    }
                )
    return means


def draw(results: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    one_thread = [r for r in results if r["threads"] == 1]
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(one_thread) + 1.2))
    places = np.arange(len(one_thread))
    axes.barh(places + 0.2, [r["ratio"] for r in one_thread], 0.4, label="times the best peer")
    axes.barh(places - 0.2, [r["ratio_to_torch_ao"] for r in one_thread], 0.4, label="times torch.ao")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yticks(places, [f"{r['row']} ({r['best_peer']})" for r in one_thread], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("speed of fourfold int8, one thread (best peer in brackets)")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def machine() -> dict:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    packages = ("torch", "onnxruntime", "openvino", "ncnn")
    return {"cpu": model, "versions": {p: importlib.metadata.version(p) for p in packages}}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="for each row and number of threads (default: %(default)s)"
    )
    parser.add_argument("--limits", type=Path, help="the program that measures the machine's limits")
    parser.add_argument(
        "--native", type=Path, help="the program that times a recurrent layer called from C++"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--picture", type=Path, help="draw the ratios here")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.only in row.name]
    if not rows:
        parser.error(f"no row's name contains '{arguments.only}'")
    limits = output_of([arguments.limits]) if arguments.limits else None
    # Once, as a program that serves a model does: around each call, torch.no_grad() alone takes two microseconds.
    torch.set_grad_enabled(False)
    results = []
    print(json.dumps(machine() | {"limits": limits}), flush=True)
    for threads in arguments.threads:
        for row in rows:
            result = measure(row, threads, arguments.seconds, arguments.limits, arguments.native)
            results.append(result)
            times = ", ".join(f"{name} {value:.1f}" for name, value in result["microseconds"].items())
            if result["microseconds_in_cpp"]:
                times += f"; called from C++ {result['microseconds_in_cpp']:.1f}"
            if result["share_of_limit"]:
                times += f", {100 * result['share_of_limit']:.0f} % of the limit"
            verdict = "" if result["ratio"] >= row.target or threads > 1 else "  BELOW TARGET"
            print(
                f"{threads} thread{'s' if threads > 1 else ' '}  {row.name}: {result['ratio']:.2f} times {result['best_peer']} "
                f"(target {row.target}), {result['ratio_to_torch_ao']:.2f} times torch.ao{verdict}\n"
                f"    microseconds: {times}",
                flush=True,
            )
    means = summary(results)
    for mean in means:
        print(
            f"{mean['threads']} thread{'s' if mean['threads'] > 1 else ' '}  {mean['kind']}: geometric mean {mean['ratio']:.2f} times "
            f"the best peer, {mean['ratio_to_torch_ao']:.2f} times torch.ao; behind the best peer: "
            f"{mean['rows_behind_the_best_peer'] or 'none'}"
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"machine": machine(), "limits": limits, "rows": results, "means": means}, indent=1)
        )
    if arguments.picture:
        draw(results, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
