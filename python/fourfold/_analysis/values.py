"""What goes into a model and what comes out: calls, tensors, differences, histograms, bytes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fourfold._analysis.report import Difference, Histogram

SAMPLE = 65536  # values of which a histogram is made


class Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def as_calls(inputs: Any) -> list[Call]:
    if not isinstance(inputs, list):
        return [_as_call("inputs", inputs)]
    if not inputs:
        raise ValueError("analyze: inputs is an empty list: at least one call is needed")
    return [_as_call(f"inputs[{index}]", value) for index, value in enumerate(inputs)]


def _as_call(where: str, value: Any) -> Call:
    if isinstance(value, Tensor) or hasattr(value, "_fields"):  # such as a PackedSequence
        return Call((value,), {})
    if isinstance(value, tuple):
        return Call(value, {})
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"analyze: {where}: a dict has the arguments' names as keys, got {list(value)}")
        return Call((), dict(value))
    hint = ": use torch.from_numpy" if type(value).__module__ == "numpy" else ""
    raise TypeError(
        f"analyze: {where} must be a tensor, a tuple of arguments, a dict of named arguments, or a list of such calls, "
        f"got {type(value).__name__}{hint}"
    )


def float_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The float tensors in what a model returned, with names such as `output`, `1.0`, `logits`."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name or "output", value
        return
    if isinstance(value, PackedSequence):
        yield from float_tensors(value.data, name)
        return
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif dataclasses.is_dataclass(value):
        parts = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value)
    elif isinstance(value, (tuple, list)):
        parts = enumerate(value)
    for key, part in parts:
        yield from float_tensors(part, f"{name}.{key}" if name else str(key))


def describe(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} {tuple(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """All values as two vectors of doubles; without those that are not finite in float, such as a mask's."""
    expected, actual = (torch.cat([pair[i].flatten().double() for pair in pairs]) for i in (0, 1))
    finite = expected.isfinite()
    return (expected, actual) if bool(finite.all()) else (expected[finite], actual[finite])


def difference_of(expected: Tensor, actual: Tensor) -> Difference:
    """How far two vectors are apart."""
    if not len(expected):
        return Difference(0.0, 0.0, 0.0, math.nan, math.nan, math.nan)
    distance = actual - expected
    mean, off = expected.abs().mean().item(), distance.abs().mean().item()
    signal, noise = expected.square().sum().item(), distance.square().sum().item()
    return Difference(
        mean_absolute=mean,
        mean_difference=off,
        max_difference=distance.abs().max().item(),
        relative=off / mean if mean else math.nan,
        cosine=nn.functional.cosine_similarity(expected, actual, dim=0).item(),
        snr_db=10 * math.log10(signal / noise) if noise and signal else -math.inf if noise else math.inf,
    )


def tensor_bytes(tensors: Sequence[Tensor | None]) -> int:
    unique = {(t.data_ptr(), t.numel()): t for t in tensors if isinstance(t, Tensor)}
    return sum(t.numel() * t.element_size() for t in unique.values())


def bytes_of(module: nn.Module) -> int:
    """Of the tensors in the state dict; what is shared counts once."""
    return tensor_bytes([tensor for tensor in module.state_dict().values() if isinstance(tensor, Tensor)])


def sample(values: Tensor, most: int = SAMPLE) -> Tensor:
    return values[:: max(1, math.ceil(len(values) / most))]


def histogram(values: Tensor, symmetric: bool = False, bins: int = 49) -> Histogram:
    """Of the finite values; around zero, if `symmetric`."""
    values = values[values.isfinite()]
    low, high = (values.min().item(), values.max().item()) if len(values) else (0.0, 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(values, bins, low, high)
    return Histogram([int(c) for c in counts], [low + (high - low) * i / bins for i in range(bins + 1)])
