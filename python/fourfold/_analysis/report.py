"""What an analysis found, as a table and as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import secrets
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple, Union

_QUIET = 1.5  # quartiles of like calls' times may differ by that factor


class Pair(NamedTuple):
    """A figure of the float model, and of the quantized one."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.before / self.after if self.after else math.nan


class Histogram(NamedTuple):
    """Counts of values between edges, of which there is one more."""

    counts: list[int]
    edges: list[float]


class Difference(NamedTuple):
    """How far the quantized outputs are from the float ones."""

    mean_absolute: float  # of the float values
    mean_difference: float  # of absolute differences
    max_difference: float
    relative: float  # mean_difference / mean_absolute; NaN where that is 0
    cosine: float
    snr_db: float  # signal to noise; inf where they are equal, -inf where all float values are 0


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that is quantized, and what this costs."""

    name: str
    kind: str  # its class in PyTorch
    dtype: str
    calls: int  # by the inputs
    bytes: Pair
    microseconds: Pair  # in one call of the model, hooks included
    error: (
        float | None
    )  # relative, at the model's outputs, when this layer alone is quantized; None: never called
    metric: float | None  # then
    inputs: Histogram | None  # values that come into the layer, a sample
    errors: (
        Histogram | None
    )  # differences at the model's outputs when this layer alone is quantized, a sample

    @property
    def title(self) -> str:
        return self.name or "model"

    @property
    def saved(self) -> float:
        return self.bytes.before - self.bytes.after


@dataclasses.dataclass(frozen=True)
class Choice:
    """The model with some layers left in float: measured, not estimated."""

    leave: list[str]
    error: float
    bytes: float
    metric: float | None


class Unquantized(NamedTuple):
    """A module with parameters of its own that stays as it is."""

    name: str
    kind: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Report:
    """What fourfold.analyze found. print() shows it as a table."""

    model: str
    dtype: str
    setting: dict[str, Any]  # fourfold, torch, isa, threads
    bytes: Pair  # of the parameters and buffers in the state dict; what is shared counts once
    microseconds: Pair  # one call
    disturbance: float  # how many times the lower quartile of like calls' times the upper one is, at most
    metric: Pair | None
    higher_is_better: bool
    difference: Difference  # over all outputs
    outputs: dict[str, Difference]
    errors: Histogram  # differences over all outputs, a sample
    layers: list[Layer]  # in the model's order
    choices: list[Choice]  # the first leaves nothing out; each further one leaves one layer more in float
    advice: Choice
    unquantized: list[Unquantized]
    code: str  # the call of quantize_dynamic that follows the advice

    def __str__(self) -> str:
        return text(self)

    def by_error(self) -> list[Layer]:
        """The layers that were called, the costliest first."""
        return sorted(
            (layer for layer in self.layers if layer.error is not None), key=lambda layer: -(layer.error or 0)
        )

    def never_called(self) -> list[str]:
        return [layer.title for layer in self.layers if layer.error is None]

    @property
    def is_disturbed(self) -> bool:
        """Whether something else had the machine while latency was measured."""
        return self.disturbance > _QUIET

    def disturbance_text(self) -> str:
        return f"times of like calls differ by a factor of {self.disturbance:.1f}: the machine is busy"

    def metric_verdict(self) -> str:
        """Whether the metric became better or worse."""
        assert self.metric is not None
        change = self.metric.after - self.metric.before
        if not change:
            return "same"
        return "better" if (change > 0) == self.higher_is_better else "worse"

    def advice_text(self) -> str:
        """The advice as a sentence."""
        everything, advised = self.choices[0], self.advice
        if advised.leave:
            return (
                f"Leave out {', '.join(advised.leave)}: error {percent(everything.error)} → {percent(advised.error)}, "
                f"size {size(everything.bytes)} → {size(advised.bytes)}, "
                f"{smaller(Pair(self.bytes.before, advised.bytes))} than float instead of {smaller(self.bytes)}."
            )
        if self.metric is not None and self.metric_verdict() != "worse":
            return "Quantize everything: by the metric it is no worse than float."
        if len(self.choices) == 1:
            return "Quantize it: there is one layer, and nothing to choose."
        return "Quantize everything: what leaving out layers takes off the error is not worth their size."

    def to_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them: without numbers that it lacks."""
        after = self.dtype
        return _finite(
            {
                "model": self.model,
                "dtype": self.dtype,
                **self.setting,
                "size_bytes": {
                    "float": self.bytes.before,
                    after: self.bytes.after,
                    "times_smaller": self.bytes.ratio,
                },
                "latency_us": {
                    "float": self.microseconds.before,
                    after: self.microseconds.after,
                    "times_faster": self.microseconds.ratio,
                    "disturbance": self.disturbance,
                },
                "metric": None
                if self.metric is None
                else {
                    "float": self.metric.before,
                    after: self.metric.after,
                    "higher_is_better": self.higher_is_better,
                },
                "difference": self.difference._asdict(),
                "outputs": {name: difference._asdict() for name, difference in self.outputs.items()},
                "errors": self.errors._asdict(),
                "layers": [_layer_dict(layer, after) for layer in self.layers],
                "choices": [dataclasses.asdict(choice) for choice in self.choices],
                "advice": {
                    **dataclasses.asdict(self.advice),
                    "text": self.advice_text(),
                    "code": self.code,
                },
                "unquantized": [module._asdict() for module in self.unquantized],
            }
        )

    def to_json(self) -> str:
        """to_dict() as text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """A page with pictures that needs nothing but itself.

        Raises ImportError where matplotlib or Jinja is missing.
        """
        from fourfold._analysis import page

        return page.render(self)

    def save_html(self, path: Union[str, os.PathLike[str]]) -> None:  # noqa: UP007
        """Writes to_html() to a file: under a temporary name, then renamed. Raises OSError where it cannot."""
        require_replaceable(path)
        content = self.to_html()
        target = os.path.realpath(path)  # the file that a symbolic link stands for
        folder, name = os.path.split(target)
        temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(content)
            if os.path.exists(target):
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError):  # of the name that the caller knows
                raise OSError(error.errno, error.strerror, os.fspath(path)) from None
            raise


def require_replaceable(path: Union[str, os.PathLike[str]]) -> None:  # noqa: UP007
    """Raises OSError where a file would take the place of a pipe or a device; a folder lets nothing take its place."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(f"cannot write {os.fspath(path)}: Not a regular file")


def _layer_dict(layer: Layer, after: str) -> dict[str, Any]:
    fields = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    for name in ("bytes", "microseconds"):
        fields[name] = {"float": fields[name].before, after: fields[name].after}
    for name in ("inputs", "errors"):
        fields[name] = None if fields[name] is None else fields[name]._asdict()
    return fields


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- As text ----


def size(count: float) -> str:
    """Bytes, as a person reads them; 1 KB is 1000 bytes."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 999.5 * scale else f"{count / scale:.0f} {unit}"
    return f"{count:.0f} bytes"


def duration(microseconds: float) -> str:
    """A time, as a person reads it."""
    for unit, scale in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= scale:
            return f"{microseconds / scale:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def percent(share: float | None) -> str:
    """A share; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.2f} %" if share >= 1e-3 or share == 0 else f"{100 * share:.2g} %"


def smaller(pair: Pair) -> str:
    return f"{pair.ratio:.2f} times smaller" if pair.ratio >= 1 else f"{1 / pair.ratio:.2f} times larger"


def faster(pair: Pair) -> str:
    return f"{pair.ratio:.2f} times faster" if pair.ratio >= 1 else f"{1 / pair.ratio:.2f} times slower"


def number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.5g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Aligned columns; those not in `left` are aligned right."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)


def text(report: Report) -> str:
    """The report as tables."""
    after, setting = report.dtype, report.setting
    threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
    summary = [
        ["size", size(report.bytes.before), size(report.bytes.after), smaller(report.bytes)],
        [
            f"latency, {threads}",
            duration(report.microseconds.before),
            duration(report.microseconds.after),
            faster(report.microseconds) + (f" ({report.disturbance_text()})" if report.is_disturbed else ""),
        ],
        ["error", "", percent(report.difference.relative), "of the mean magnitude of the outputs"],
    ]
    if report.metric is not None:
        summary.append(
            ["metric", number(report.metric.before), number(report.metric.after), report.metric_verdict()]
        )
    parts = [
        f"{report.model}: float32 → {after}; fourfold {setting['fourfold']}, instruction set {setting['isa']}, "
        f"torch {setting['torch']}",
        table(["", "float", after, ""], summary, left=(0, 3)),
        table(
            ["output", "mean |float|", "mean difference", "max difference", "relative", "cosine", "SNR"],
            [
                [
                    name,
                    number(d.mean_absolute),
                    number(d.mean_difference),
                    number(d.max_difference),
                    percent(d.relative),
                    f"{d.cosine:.6f}",
                    f"{d.snr_db:.1f} dB",
                ]
                for name, d in report.outputs.items()
            ],
        ),
        table(
            [
                "layer",
                "kind",
                "calls",
                "float",
                after,
                "time float",
                f"time {after}",
                "error alone",
                *(["metric alone"] if report.metric else []),
            ],
            [
                [
                    layer.title,
                    layer.kind,
                    str(layer.calls),
                    size(layer.bytes.before),
                    size(layer.bytes.after),
                    duration(layer.microseconds.before) if layer.calls else "–",
                    duration(layer.microseconds.after) if layer.calls else "–",
                    percent(layer.error),
                    *([number(layer.metric)] if report.metric else []),
                ]
                for layer in report.layers
            ],
            left=(0, 1),
        ),
    ]
    if report.unquantized:
        named = ", ".join(
            f"{module.name or 'model'} ({module.kind}, {size(module.bytes)})"
            for module in report.unquantized[:6]
        )
        more = len(report.unquantized) - 6
        parts.append(f"Stay as they are: {named}{f', and {more} more' if more > 0 else ''}")
    if report.never_called():
        parts.append(
            f"Never called by the inputs, so nothing is known of their error: {', '.join(report.never_called())}"
        )
    if len(report.choices) > 1:
        parts.append(
            table(
                ["left in float", "error", "size", "times smaller", *(["metric"] if report.metric else [])],
                [
                    [
                        f"+ {choice.leave[-1]}" if choice.leave else "nothing",
                        percent(choice.error),
                        size(choice.bytes),
                        f"{report.bytes.before / choice.bytes:.2f}",
                        *([number(choice.metric)] if report.metric else []),
                    ]
                    for choice in report.choices
                ],
            )
        )
    parts.append(f"{report.advice_text()}\n  {report.code}")
    return "\n\n".join(parts)
