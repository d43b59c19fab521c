"""What a second thread gains, and what it costs where another process has a core.

    python bench/threads.py --json threads.json

fourfold alone, without peers in the process, whose pools would go on spinning on the cores: each row's int8 layer
on one thread and on two, in turns; then on two beside a process that computes all the time on every core but one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch
from engines import make_input, make_module
from rows import ROWS, Row

import fourfold
from fourfold.timing import time_in_turns

# Callers work alone for a while after a busy machine: longer than that of the row before.
REST = 2.0


def compute_all_the_time() -> None:
    while True:
        pass


def measure(row: Row, seconds: float) -> dict[str, float]:
    """Microseconds of a call, by the circumstances."""
    model = torch.nn.ModuleList([make_module(row)])
    layer = fourfold.quantize_dynamic(model)[0]
    x = make_input(row)

    def on(threads: int):
        def run():
            fourfold.set_num_threads(threads)
            layer(x)

        return run

    time.sleep(REST)
    times = time_in_turns({"one thread": on(1), "two threads": on(2)}, seconds)
    others = [
        multiprocessing.get_context("spawn").Process(target=compute_all_the_time, daemon=True)
        for _ in range(max((os.cpu_count() or 2) - 1, 1))
    ]
    for process in others:
        process.start()
    try:
        times |= time_in_turns({"two threads, busy machine": on(2)}, seconds)
    finally:
        for process in others:
            process.kill()
            process.join()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    with torch.no_grad():
        for row in [row for row in ROWS if arguments.only in row.name]:
            times = measure(row, arguments.seconds)
            one, two, busy = times.values()
            results.append({"row": row.name, "microseconds": times, "speedup": one / two, "busy": busy / two})
            print(
                f"{row.name:62s} {one:9.1f} -> {two:9.1f} us, {one / two:.2f} times as fast; "
                f"busy {busy:9.1f} us, {busy / two:.2f} times as long",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
