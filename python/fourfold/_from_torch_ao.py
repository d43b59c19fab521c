"""Models that torch.ao.quantization.quantize_dynamic has quantized become fourfold's."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.ao.nn.quantized.dynamic as ao
from torch import Tensor, nn

from fourfold import _core
from fourfold import nn as quantized
from fourfold._layers import Options
from fourfold._quantize_dynamic import hold_off_fast_paths, replace_in_copy, replace_modules
from fourfold.nn._base import QuantizedModule

_COUNTERPARTS: dict[type[nn.Module], type[QuantizedModule]] = {
    ao.Linear: quantized.Linear,
    ao.LSTM: quantized.LSTM,
    ao.GRU: quantized.GRU,
    ao.LSTMCell: quantized.LSTMCell,
    ao.GRUCell: quantized.GRUCell,
    ao.RNNCell: quantized.RNNCell,
}


def from_torch_ao(model: nn.Module, inplace: bool = False) -> nn.Module:
    """A copy of a model whose dynamically quantized layers are fourfold's, with the same integers for weights.

    Linear, LSTM, GRU and the cells of torch.ao.nn.quantized.dynamic are converted, whether their weights have one
    scale or one a row, or are float16; all else stays.

    fourfold's weights are from -127 to 127. torch.ao's may be -128, at most once a scale or so: that becomes -127,
    and a warning counts them.

    Args:
        model: a model, or one layer.
        inplace: change the model itself.

    Raises:
        TypeError: where the model is no module.
        ValueError: for weights with a zero point other than 0, whose integers mean something else.

    Warns:
        UserWarning: where there is nothing to convert, and where a weight was -128.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"from_torch_ao: model must be a torch.nn.Module, got {type(model).__name__}")
    converted: dict[nn.Module, nn.Module] = {}
    clamped = 0
    for name, module in model.named_modules():
        if type(module) in _COUNTERPARTS:
            try:
                converted[module], count = _convert(module)
            except (ValueError, _core.Error) as error:
                raise type(error)(f"from_torch_ao: {name + ': ' if name else ''}{error}") from None
            clamped += count
    if clamped:
        text = "1 weight was -128 and is" if clamped == 1 else f"{clamped} weights were -128 and are"
        warnings.warn(f"from_torch_ao: {text} -127 now", stacklevel=2)
    if not converted:
        warnings.warn(
            f"from_torch_ao: the model has no layer of torch.ao's to convert:\n{model}", stacklevel=2
        )
    result = replace_modules(model, converted) if inplace else replace_in_copy(model, converted)
    hold_off_fast_paths(result)
    return result.eval()


def _convert(module: nn.Module) -> tuple[nn.Module, int]:
    """The counterpart, and how many weights were -128."""
    counterpart = _COUNTERPARTS[type(module)]
    weights, biases = _parameters(module)
    options: Options = {name: getattr(module, name) for name in counterpart.OPTIONS if name != "proj_size"}
    options["bias"] = any(bias is not None for bias in biases.values())
    tensors: dict[str, Tensor] = {
        name: bias.detach().clone() for name, bias in biases.items() if bias is not None
    }
    clamped = 0
    dtype = "qint8"
    for name, weight in weights.items():
        if not weight.is_quantized:  # float16 ones come out as the floats that they stand for
            dtype = "float16"
            tensors[name] = weight.detach().half()
            continue
        integers, tensors[name + "_scale"] = _integers(name, weight)
        clamped += int((integers == -128).sum())
        tensors[name] = integers.clamp(min=-127)
    if counterpart is quantized.LSTM:
        options["proj_size"] = 0  # torch.ao's has none
    return counterpart._from_tensors(options, dtype, tensors), clamped


def _parameters(module: Any) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    if isinstance(module, ao.Linear):
        return {"weight": module.weight()}, {"bias": module.bias()}
    return module.get_weight(), module.get_bias()


def _integers(name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [rows, inputs] and its scales [rows]."""
    rows = weight.shape[0]
    if weight.qscheme() == torch.per_tensor_affine:
        scale = torch.full((rows,), weight.q_scale())
        zero_points = torch.tensor([weight.q_zero_point()])
    elif weight.q_per_channel_axis() == 0:
        scale = weight.q_per_channel_scales().float()
        zero_points = weight.q_per_channel_zero_points()
    else:
        raise ValueError(
            f"{name}: its scales are along axis {weight.q_per_channel_axis()}, not along the rows"
        )
    if bool((zero_points != 0).any()):
        raise ValueError(f"{name}: its zero point is not 0; quantize the float model instead")
    return weight.int_repr(), scale.clone()
