"""Runs a model in float, quantized, and with each layer alone quantized, and measures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import numbers
import statistics
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import torch
from torch import Tensor, nn

from fourfold import _core
from fourfold._analysis.report import Choice, Difference, Histogram, Layer, Pair, Report, Unquantized
from fourfold._analysis.values import (
    Call,
    as_calls,
    bytes_of,
    describe,
    difference_of,
    float_tensors,
    histogram,
    joined,
    sample,
    tensor_bytes,
)
from fourfold._analysis.watching import Bar, Stopwatch, Watch
from fourfold._quantize_dynamic import (
    MAPPING,
    Spec,
    find_targets,
    kind_of,
    left_out,
    names_of,
    normalized_spec,
    quantize_dynamic,
)
from fourfold._threads import get_num_threads
from fourfold.timing import spread, times_in_turns

Metric = Callable[[nn.Module], Any]
Outputs = list[dict[str, Tensor]]  # by name, for each call of the model

_CHOICES = 8  # how many layers are left out, one after another, at most
# One layer more is left out where the error falls to this share or below, and all are advised where the share of the
# error that goes is larger than the share of the saving that goes by at least _WORTH.
_LOWER, _WORTH = 0.9, 0.1


def analyze(
    model: nn.Module,
    inputs: Any,
    metric: Metric | None = None,
    *,
    higher_is_better: bool = True,
    qconfig_spec: Spec = None,
    dtype: Any = torch.qint8,
    seconds: float = 2.0,
    progress: bool | None = None,
) -> Report:
    """What quantizing a model brings and costs, as a whole and layer by layer, and which layers to leave out.

        report = fourfold.analyze(model, inputs)
        print(report)
        report.save_html("report.html")

    The float model runs on PyTorch. Errors are mean |quantized - float| over mean |float|, over all float tensors
    that the model returns: alone, in tuples, lists, dicts or dataclasses, nested or not.

    Args:
        model: a float model, or one layer, on the CPU. It is unchanged afterwards.
        inputs: what to call it with: a tensor; a tuple of arguments; a dict of named arguments; or a list of such
            calls. Take some that are as in use, and long enough to tell an error from noise.
        metric: a function of a model that returns a number, such as its accuracy on a test set. It is called with
            the float model, the quantized one, and once for each layer and each choice of layers left out.
        higher_is_better: of the metric; False for a loss or an error rate.
        qconfig_spec, dtype: what to quantize, as quantize_dynamic takes it.
        seconds: how long to measure latency.
        progress: show a bar on stderr; None: where that is a terminal.

    Returns:
        The report. For its advice, layers whose share of the error is above their share of the bytes saved are left
        out one after another, as long as each lowers the error by a tenth; what is advised is where most of the
        error goes for the least of the saving, as measured. Where the metric does not become worse, it is to
        quantize everything.

    Raises:
        TypeError: where the model is no module, the inputs are of another form, or seconds is no number.
        ValueError: where seconds is not above 0 and finite, nothing can be quantized, no layer of it is called, or the
            model returns no float tensor, or zeros alone; where FOURFOLD_ISA names no instruction set of this machine.
        RuntimeError: where the model or the metric fails, or gives something else each time, or the metric no
            number.
        fourfold.Error: where a weight is not finite.

    Warns:
        UserWarning: for layers that the inputs never call, and where the machine is too busy to measure latency on.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"analyze: model must be a torch.nn.Module, got {type(model).__name__}")
    if metric is not None and not callable(metric):
        raise TypeError(f"analyze: metric must be a function of the model, got {type(metric).__name__}")
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise TypeError(f"analyze: seconds must be a number, got {describe(seconds)}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"analyze: seconds must be above 0 and finite, got {float(seconds):g}")
    _core.current_isa()  # raises where the environment names none
    _require_cpu(model)
    calls = as_calls(inputs)
    with _evaluating(model), torch.no_grad(), Bar(progress) as bar:
        return _Analysis(model, calls, metric, qconfig_spec, dtype, bar).report(higher_is_better, seconds)


# ---- The order of things ----


class _Analysis:
    """What all the runs share."""

    def __init__(
        self,
        model: nn.Module,
        calls: list[Call],
        metric: Metric | None,
        qconfig_spec: Spec,
        dtype: Any,
        bar: Bar,
    ) -> None:
        self.model, self.calls, self.metric, self.bar = model, calls, metric, bar
        spec = normalized_spec(qconfig_spec, dtype, MAPPING)
        targets = find_targets(model, spec, MAPPING)
        if not targets:
            wanted = names_of(key for key, value in spec.items() if value is not None) or "no modules"
            there = ", ".join(
                sorted({f"{type(m).__module__}.{type(m).__qualname__}" for m in model.modules()})
            )
            raise ValueError(
                f"analyze: there is nothing to quantize: {wanted} are wanted{left_out(spec)}, and the model has "
                f"{there}; subclasses stay as they are"
            )
        self.modules = {target.name: module for module, target in targets.items()}
        self.dtypes = {target.name: target.dtype for target in targets.values()}
        kinds_there = {kind_of(module) for module in targets}
        self.spec = {key: value for key, value in spec.items() if isinstance(key, str) or key in kinds_there}

    def report(self, higher_is_better: bool, seconds: float) -> Report:
        bar, model = self.bar, self.model
        bar.start(3 + len(self.modules))
        with Watch(self.modules) as watch:
            self.expected = self._run("float", model)
        if not any(watch.calls.values()):
            raise ValueError(
                f"analyze: inputs call none of the layers to quantize: {', '.join(self.modules)}"
            )
        if not any(bool((t.isfinite() & (t != 0)).any()) for call in self.expected for t in call.values()):
            raise ValueError(
                "analyze: all that the float model returns is zero, not finite, or empty: an error cannot be told"
            )
        again, _ = self._compare(self._run("float", model))
        if again.relative > 1e-4:
            raise RuntimeError(
                "analyze: the float model returns something else each time it is called with the same inputs "
                f"(off by {100 * again.relative:.2g} percent): in forward, fix its seed, reset its state, and leave its inputs as they are"
            )
        float_metric = self._metric("float", model)
        bar.step("float")
        quantized = quantize_dynamic(model, self.spec)
        outputs = self._run("quantized", quantized)
        difference, errors = self._compare(outputs)
        quantized_metric = self._metric("quantized", quantized)
        everything = Choice([], difference.relative, bytes_of(quantized), quantized_metric)
        bar.step("all layers")

        runs = {"float": model, "quantized": quantized}
        calls = {name: functools.partial(self._call, m) for name, m in runs.items()}
        latency = times_in_turns(calls, seconds, rounds=3, calls=1)
        times = {name: self._time_layers(m) for name, m in runs.items()}
        bar.step("latency")

        layers = [self._layer(name, watch, quantized, times, len(self.modules) == 1) for name in self.modules]
        never = [layer.title for layer in layers if layer.error is None]
        if never:
            warnings.warn(
                f"analyze: inputs never call {', '.join(never)}: nothing is known of their error",
                stacklevel=4,
            )
        choices, worthwhile = [everything], [everything]
        for leave in _worth_leaving(layers):
            choices.append(self._choice(leave))
            if choices[-1].error > _LOWER * choices[-2].error:
                break
            worthwhile.append(choices[-1])
        advice = _best(worthwhile, bytes_of(model))
        metric = None
        if float_metric is not None and quantized_metric is not None:
            metric = Pair(float_metric, quantized_metric)
            if (metric.after - metric.before) * (1 if higher_is_better else -1) >= 0:
                advice = everything
        report = Report(
            model=type(model).__name__,
            dtype="float16" if set(self.dtypes.values()) == {"float16"} else "int8",
            setting={
                "fourfold": _core.__version__,
                "torch": torch.__version__,
                "isa": _core.current_isa(),
                "threads": get_num_threads(),
            },
            bytes=Pair(bytes_of(model), everything.bytes),
            microseconds=Pair(*(statistics.median(latency[name]) / len(self.calls) for name in runs)),
            disturbance=max(map(spread, latency.values())),
            metric=metric,
            higher_is_better=higher_is_better,
            difference=difference,
            outputs=self._compare_each(outputs),
            errors=errors,
            layers=layers,
            choices=choices,
            advice=advice,
            unquantized=self._unquantized(),
            code=self._code(advice.leave),
        )
        if report.is_disturbed:
            warnings.warn(f"analyze: the latency is no measure: {report.disturbance_text()}", stacklevel=4)
        return report

    def _layer(
        self,
        name: str,
        watch: Watch,
        quantized: nn.Module,
        times: dict[str, dict[str, float]],
        is_only: bool,
    ) -> Layer:
        module = self.modules[name]
        layer = Layer(
            name=name,
            kind=kind_of(module).__name__,
            dtype=self.dtypes[name],
            calls=watch.calls[name],
            bytes=Pair(bytes_of(module), bytes_of(quantized.get_submodule(name))),
            microseconds=Pair(times["float"][name], times["quantized"][name]),
            error=None,
            metric=None,
            inputs=watch.histogram(name),
            errors=None,
        )
        if layer.calls:
            alone = quantized if is_only else self._quantize({name: self.dtypes[name]})
            what = f"{layer.title} alone"
            difference, errors = self._compare(self._run(what, alone))
            layer = dataclasses.replace(
                layer, error=difference.relative, errors=errors, metric=self._metric(what, alone)
            )
        self.bar.step(layer.title)
        return layer

    def _choice(self, leave: list[str]) -> Choice:
        self.bar.more(1)
        model = self._quantize(self._spec_without(leave))
        what = f"without {', '.join(leave)}"
        difference, _ = self._compare(self._run(what, model))
        choice = Choice(leave, difference.relative, bytes_of(model), self._metric(what, model))
        self.bar.step(what)
        return choice

    # ---- Quantizing ----

    def _quantize(self, spec: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to say, all layers together have said
            return quantize_dynamic(self.model, spec)

    def _spec_without(self, leave: Sequence[str]) -> dict[Any, str | None]:
        spec = dict(self.spec)
        if leave:
            left = {id(self.modules[name]) for name in leave}
            for name, module in self.model.named_modules(remove_duplicate=False):  # all the names of each
                if id(module) in left:
                    spec[name] = None
        return spec

    def _code(self, leave: Sequence[str]) -> str:
        def key_text(key: Any) -> str:
            if isinstance(key, str):
                return repr(key)
            return f"{'nn' if key.__module__.startswith('torch.nn.') else key.__module__}.{key.__qualname__}"

        entries = ", ".join(
            f"{key_text(key)}: {value and 'torch.' + value}"
            for key, value in self._spec_without(leave).items()
        )
        return f"fourfold.quantize_dynamic(model, {{{entries}}})"

    def _unquantized(self) -> list[Unquantized]:
        inside = {id(part) for module in self.modules.values() for part in module.modules()}
        found = []
        for name, module in self.model.named_modules():
            count = tensor_bytes([*module._parameters.values(), *module._buffers.values()])
            if count and id(module) not in inside:
                found.append(Unquantized(name, type(module).__name__, count))
        return sorted(found, key=lambda module: -module.bytes)

    # ---- Running ----

    def _call(self, model: nn.Module) -> list[Any]:
        return [model(*call.args, **call.kwargs) for call in self.calls]

    def _run(self, what: str, model: nn.Module) -> Outputs:
        """The float tensors that each call returns, copied."""
        outputs: Outputs = []
        for index, call in enumerate(self.calls):
            try:
                returned = model(*call.args, **call.kwargs)
            except Exception as error:
                where = f"inputs[{index}]" if len(self.calls) > 1 else "inputs"
                raise RuntimeError(
                    f"analyze: the model ({what}) failed on {where}: {type(error).__name__}: {error}"
                ) from error
            found = {name: tensor.detach().clone() for name, tensor in float_tensors(returned)}
            if not found:
                raise ValueError(
                    f"analyze: the model returned no float tensor but {describe(returned)}: nothing to compare. Let it "
                    "return its scores, or a tuple or dict of such tensors"
                )
            outputs.append(found)
        return outputs

    def _metric(self, what: str, model: nn.Module) -> float | None:
        if self.metric is None:
            return None
        try:
            value = self.metric(model.eval())
        except Exception as error:
            raise RuntimeError(
                f"analyze: metric failed on the model ({what}): {type(error).__name__}: {error}"
            ) from error
        if not isinstance(value, Tensor) or value.numel() == 1:
            with contextlib.suppress(TypeError, ValueError):
                if not isinstance(value, (str, bytes)) and math.isfinite(float(value)):
                    return float(value)
        raise RuntimeError(
            f"analyze: metric must return a finite number, got {describe(value)} for the model ({what})"
        )

    def _time_layers(self, model: nn.Module) -> dict[str, float]:
        """The microseconds of each layer in one call of the model: the smallest of three runs."""
        times = dict.fromkeys(self.modules, math.inf)
        for _ in range(3):
            with Stopwatch({name: model.get_submodule(name) for name in self.modules}) as watch:
                self._call(model)
            for name, spent in watch.spent.items():
                times[name] = min(times[name], 1e6 * spent / len(self.calls))
        return times

    # ---- Comparing ----

    def _pairs(self, outputs: Outputs) -> Iterator[tuple[str, Tensor, Tensor]]:
        for expected, actual in zip(self.expected, outputs):
            for name, tensor in expected.items():
                if name not in actual or actual[name].shape != tensor.shape:
                    shape = tuple(actual[name].shape) if name in actual else "nothing"
                    raise RuntimeError(
                        f"analyze: '{name}' is {tuple(tensor.shape)} in float and {shape} quantized: outputs can be "
                        "compared where their shape does not depend on their values; let the model return its scores"
                    )
                yield name, tensor, actual[name]

    def _compare(self, outputs: Outputs) -> tuple[Difference, Histogram]:
        expected, actual = joined([(e, a) for _, e, a in self._pairs(outputs)])
        return difference_of(expected, actual), histogram(sample(actual - expected), symmetric=True)

    def _compare_each(self, outputs: Outputs) -> dict[str, Difference]:
        by_name: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, expected, actual in self._pairs(outputs):
            by_name.setdefault(name, []).append((expected, actual))
        return {name: difference_of(*joined(pairs)) for name, pairs in by_name.items()}


# ---- Advice ----


def _worth_leaving(layers: Sequence[Layer]) -> list[list[str]]:
    """Which layers to try to leave out, each list one longer: those with more of the error than of the saving."""
    called = [layer for layer in layers if layer.error is not None]
    # Errors of different layers add as if they were independent: their squares do.
    errors = {layer.name: (layer.error or 0.0) ** 2 for layer in called}
    all_errors = sum(errors.values()) or math.inf
    saved = sum(layer.saved for layer in called) or math.inf
    gain = {layer.name: errors[layer.name] / all_errors - layer.saved / saved for layer in called}
    ranked = sorted(gain, key=lambda name: -gain[name])
    ranked = ranked[: max(1, sum(gain[name] > 0 for name in ranked))][: min(_CHOICES, len(called) - 1)]
    return [ranked[: count + 1] for count in range(len(ranked))]


def _best(choices: Sequence[Choice], float_bytes: float) -> Choice:
    """The choice that takes away most of the error for the least of the saving; the first if none is worth it."""
    everything = choices[0]

    def worth(choice: Choice) -> float:
        saved = (float_bytes - choice.bytes) / ((float_bytes - everything.bytes) or math.inf)
        return saved - choice.error / (everything.error or math.inf)

    best = max(choices, key=worth)
    return best if worth(best) > worth(everything) + _WORTH else everything


def _require_cpu(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ValueError(
                f"analyze: runs on the CPU only, and {name} is on {tensor.device}: use model.cpu()"
            )


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards each module is as it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
