"""How a layer's time grows with the steps, the batch, the hidden size and the number of layers.

    python bench/growth.py --json growth.json --picture growth.svg

One thread, int8 and float16 weights of fourfold, medians; the picture draws each as a line, with slope 1 for
comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

import fourfold
from fourfold.timing import time_in_turns

START = {"steps": 100, "batch": 1, "hidden_size": 256, "num_layers": 1}
SWEEPS = {
    "steps": [1, 2, 5, 10, 20, 50, 100, 200, 500],
    "batch": [1, 2, 4, 8, 16, 32, 64],
    "hidden_size": [16, 32, 64, 128, 256, 512, 1024],
    "num_layers": [1, 2, 3, 4, 6, 8],
}


def microseconds(
    seconds: float, *, steps: int, batch: int, hidden_size: int, num_layers: int
) -> dict[str, float]:
    """The time of one call of LSTM(hidden_size, hidden_size, num_layers), by dtype."""
    lstm = torch.nn.LSTM(hidden_size, hidden_size, num_layers)
    model = torch.nn.ModuleList([lstm])
    x = torch.randn(steps, batch, hidden_size)
    layers = {
        "int8": fourfold.quantize_dynamic(model, {torch.nn.LSTM}, dtype=torch.qint8)[0],
        "float16": fourfold.quantize_dynamic(model, {torch.nn.LSTM}, dtype=torch.float16)[0],
    }
    return time_in_turns({name: lambda layer=layer: layer(x) for name, layer in layers.items()}, seconds)


def draw(sweeps: dict[str, list[dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, all_axes = plt.subplots(1, len(sweeps), figsize=(3.2 * len(sweeps), 3), layout="constrained")
    for axes, (name, points) in zip(all_axes, sweeps.items(), strict=True):
        at = [p[name] for p in points]
        for dtype in ("int8", "float16"):
            axes.loglog(at, [p["microseconds"][dtype] for p in points], marker="o", markersize=3, label=dtype)
        last = points[-1]["microseconds"]["int8"]
        axes.loglog(
            at, [last * x / at[-1] for x in at], color="gray", linewidth=0.7, linestyle=":", label="slope 1"
        )
        axes.set_xlabel(name)
        axes.set_xticks(at, [str(x) for x in at], fontsize=7, minor=False)
        axes.minorticks_off()
    all_axes[0].set_ylabel("microseconds a call")
    all_axes[0].legend(fontsize=7)
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.3, help="for each point (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--picture", type=Path, help="draw them here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fourfold.set_num_threads(1)
    torch.manual_seed(0)
    sweeps: dict[str, list[dict]] = {}
    with torch.no_grad():
        for name, values in SWEEPS.items():
            sweeps[name] = []
            for value in values:
                point = START | {name: value}
                times = microseconds(arguments.seconds, **point)
                sweeps[name].append(point | {"microseconds": times})
                print(
                    f"{name} {value:5d}: " + ", ".join(f"{k} {v:10.1f} us" for k, v in times.items()),
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(sweeps, indent=1))
    if arguments.picture:
        draw(sweeps, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
