"""Plain tensors to packed weights, and to quantized ones.

The plain tensors are the truth. The packed form, which the kernels read, is made of them when it is first
needed; it is kept as long as they live, and made anew where they changed.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from fourfold import _core
from fourfold._layers import KINDS, parameters

# A weight's dtype by the name that the core has for it.
WEIGHT_DTYPES = {"qint8": torch.int8, "float16": torch.float16}


def named_array(name: str, tensor: Tensor) -> _core.NamedArray:
    """How the core takes a contiguous tensor on the CPU: it must be kept alive until the core has copied it."""
    return name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.data_ptr()


def plain(tensor: Tensor) -> Tensor:
    """The same values as float32, contiguous, on the CPU, without a gradient."""
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()


def quantize(weight: Tensor, dtype: str, name: str) -> tuple[Tensor, Tensor | None]:
    """A float matrix [rows, inputs] as int8 with a scale [rows], or as float16 without.

    Raises fourfold.Error, naming `name` and the index, where a value is not finite, or too large for float16.
    """
    weight = plain(weight)
    rows, inputs = weight.shape
    # A tensor made in inference mode would not count its versions.
    with torch.inference_mode(False):
        quantized = torch.empty((rows, inputs), dtype=WEIGHT_DTYPES[dtype], device="cpu")
        scale = torch.empty((rows,), dtype=torch.float32, device="cpu") if dtype == "qint8" else None
    if scale is None:
        _core.quantize_float16(weight.data_ptr(), rows, inputs, quantized.data_ptr(), name)
    else:
        _core.quantize_qint8(weight.data_ptr(), rows, inputs, quantized.data_ptr(), scale.data_ptr(), name)
    return quantized, scale


def dequantize(weight: Tensor, scale: Tensor | None) -> Tensor:
    """The float32 values that a quantized weight stands for."""
    return weight.float() if scale is None else weight.float() * scale[:, None]


def version(tensor: Tensor) -> int:
    """Rises whenever the tensor is written to; 0 where PyTorch does not count."""
    return 0 if tensor.is_inference() else tensor._version


class _Packed:
    """What was packed, and of which tensors."""

    def __init__(self, layer: str, tensors: Sequence[Tensor]) -> None:
        self.layer = layer
        self.tensors = [weakref.ref(tensor) for tensor in tensors]
        self.versions = [version(tensor) for tensor in tensors]
        self.handle = _pack(layer, tensors)

    def is_of(self, layer: str, tensors: Sequence[Tensor]) -> bool:
        return (
            self.layer == layer
            and len(self.tensors) == len(tensors)
            and all(known() is tensor for known, tensor in zip(self.tensors, tensors))
            and self.versions == [version(tensor) for tensor in tensors]
        )


# By the first tensor of a layer, which holds its packed form alive.
_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()


def packed(layer: str, tensors: Sequence[Tensor]) -> Any:
    """The core's layer for plain tensors: those of its state dict, in that order.

    `layer` is what layer_name() makes. A float32 weight, which another module shares, is quantized here. Raises
    fourfold.Error where a tensor does not fit.
    """
    found: list[_Packed] = _packed.setdefault(tensors[0], [])
    for entry in found:
        if entry.is_of(layer, tensors):
            return entry.handle
    entry = _Packed(layer, tensors)
    found[:] = [other for other in found if other.layer != layer] + [entry]
    return entry.handle


def _pack(layer: str, tensors: Sequence[Tensor]) -> Any:
    options = json.loads(layer)
    kind, dtype = options.pop("kind"), options.pop("dtype")
    named: list[tuple[str, Tensor]] = []
    rest = iter(tensors)
    for parameter in parameters(kind, options):
        tensor = next(rest)
        if not parameter.is_weight:
            named.append((parameter.name, plain(tensor)))
            continue
        if tensor.dtype == torch.int8:
            weight, scale = tensor.detach().contiguous(), plain(next(rest))
        elif tensor.dtype == torch.float16:
            weight, scale = tensor.detach().contiguous(), None
        else:
            weight, scale = quantize(tensor, dtype, parameter.name)
        named.append((parameter.name, weight))
        if scale is not None:
            named.append((parameter.name + "_scale", scale))
    return KINDS[kind].core(options, [named_array(name, tensor) for name, tensor in named])
