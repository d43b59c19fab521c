"""The pictures of a report: inline SVG whose colours are the page's, so that they follow its dark mode."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from fourfold._analysis.report import Histogram, Report, duration, number, percent, size

# matplotlib wants a colour: each name of the page's has one that stands for it, and is replaced in the SVG.
_COLOURS = {name: f"#0a0b{index:02x}" for index, name in enumerate(("ink", "muted", "line", "float", "int8", "error"))}  # fmt: skip
_STYLE: Any = {
    "text.parse_math": False,  # a layer's name may have dollars in it
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "fourfold",
    "font.size": 11,
    "text.color": _COLOURS["ink"],
    "axes.edgecolor": _COLOURS["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": _COLOURS["line"],
    "xtick.labelcolor": _COLOURS["muted"],
    "xtick.labelsize": 10,
    "ytick.left": False,
    "ytick.labelleft": False,
}
_WIDTH = 4.6  # inches: about the width of a telephone; on a desktop the page makes it larger
_MOST_BARS = 12
_numbers = itertools.count()


class Row(NamedTuple):
    """A label, what stands at its right, and bars under it: each of segments with a width and a colour."""

    label: str
    value: str
    bars: Sequence[Sequence[tuple[float, str]]]


def error_by_layer(report: Report) -> str:
    """A bar for each layer, the costliest first."""
    layers = report.by_error()
    return _bars(
        [Row(layer.title, percent(layer.error), [[(layer.error or 0.0, "error")]]) for layer in layers]
    )


def size_by_layer(report: Report) -> str:
    """Two bars for each layer, the largest first."""
    layers = sorted(report.layers, key=lambda layer: -layer.bytes.before)
    return _bars(
        [
            Row(
                layer.title,
                f"{size(layer.bytes.before)} → {size(layer.bytes.after)}",
                [[(layer.bytes.before, "float")], [(layer.bytes.after, "int8")]],
            )
            for layer in layers
        ]
    )


def latency(report: Report) -> str:
    """A bar for each model: the layers that are quantized, and the rest."""
    rows = []
    for index, label in enumerate(("float", report.dtype)):
        total = report.microseconds[index]
        in_layers = min(total, sum(layer.microseconds[index] for layer in report.layers if layer.calls))
        colour = ("float", "int8")[index]
        rows.append(Row(label, duration(total), [[(in_layers, colour), (total - in_layers, "line")]]))
    return _bars(rows, thick=True)


def wide_histogram(values: Histogram, colour: str) -> str:
    """Counts on a logarithmic scale, with an axis."""
    with _figure(_WIDTH, 2.0) as (figure, svg):
        axes = figure.add_axes((0.02, 0.17, 0.96, 0.8))
        _steps(axes, values, colour)
        axes.locator_params(axis="x", nbins=6)
    return svg()


def small_histogram(values: Histogram, colour: str) -> str:
    """Counts on a logarithmic scale, with the lowest and the highest value."""
    with _figure(2.0, 0.9) as (figure, svg):
        axes = figure.add_axes((0.0, 0.24, 1.0, 0.74))
        _steps(axes, values, colour)
        axes.set_xticks([])
        for edge, place in ((values.edges[0], "left"), (values.edges[-1], "right")):
            x = {"left": 0.0, "right": 1.0}[place]
            axes.text(
                x,
                -0.08,
                f"{edge:.2g}",
                transform=axes.transAxes,
                ha=place,
                va="top",
                color=_COLOURS["muted"],
            )
    return svg()


def _steps(axes: Any, values: Histogram, colour: str) -> None:
    axes.stairs([count + 1 for count in values.counts], values.edges, baseline=1, fill=True, color=_COLOURS[colour])  # fmt: skip
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(bottom=1)
    axes.set_xlim(values.edges[0], values.edges[-1])
    axes.minorticks_off()
    axes.set_yticks([])


def _bars(rows: Sequence[Row], thick: bool = False) -> str:
    shown, rest = rows[:_MOST_BARS], len(rows) - _MOST_BARS
    bar = 0.15 if thick else 0.08
    pitch = 0.25 + sum(bar + 0.03 for _ in shown[0].bars) + 0.09
    height = pitch * len(shown) + (0.25 if rest > 0 else 0)
    longest = max((sum(width for width, _ in bars) for row in shown for bars in row.bars), default=0) or 1
    with _figure(_WIDTH, height) as (figure, svg):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.set_xlim(0, longest)
        axes.set_ylim(height, 0)  # in inches, downwards
        for index, row in enumerate(shown):
            top = index * pitch
            axes.text(0, top + 0.17, _short(row.label, 46 - len(row.value)), va="baseline")
            axes.text(longest, top + 0.17, row.value, va="baseline", ha="right", color=_COLOURS["muted"])
            for line, segments in enumerate(row.bars):
                start = 0.0
                for width, colour in segments:
                    y = top + 0.23 + line * (bar + 0.03)
                    axes.barh(y, width, bar, left=start, align="edge", color=_COLOURS[colour])
                    start += width
        if rest > 0:
            axes.text(0, height - 0.06, f"and {number(rest)} more, in the table", color=_COLOURS["muted"])
    return svg()


def _short(name: str, most: int) -> str:
    """A long name without its middle."""
    if len(name) <= most:
        return name
    head = (most - 1) // 3
    return f"{name[:head]}…{name[head + 1 - most :]}"


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """A figure, and a function that gives its SVG afterwards."""
    found: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), facecolor="none")
        yield figure, lambda: found[0]
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    found.append(_inline(file.getvalue()))


def _inline(text: str) -> str:
    """An SVG file as part of a page: no fixed size, ids of its own, the page's colours."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    prefix = f"p{next(_numbers)}-"
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    for name, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("<svg ", '<svg aria-hidden="true" ', 1)
