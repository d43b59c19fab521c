"""y = x W^T + b."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fourfold._layers import Options
from fourfold.nn import _ops
from fourfold.nn._base import (
    QuantizedModule,
    allocator,
    float32,
    is_eager,
    is_tracing,
    require_cpu,
    require_tensor,
)


class Linear(QuantizedModule):
    """torch.nn.Linear with int8 or float16 weights; the arguments are its own, and so are the initial weights.

    Args:
        dtype: torch.qint8 or torch.float16.

    Input: float32 [..., in_features]. Output: float32 [..., out_features]. Each row is quantized alone, so none
    changes another's result.

    `.weight` gives the float32 values, since other code reads it. PyTorch's own TransformerEncoderLayer would even
    compute with them, in float; quantize_dynamic holds that off.

    Raises:
        RuntimeError: as torch.nn.Linear does, for a wrong shape or dtype.
    """

    KIND = "Linear"
    FLOAT_MODULE = nn.Linear
    OPTIONS = ("in_features", "out_features")

    in_features: int
    out_features: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        self._take(nn.Linear(in_features, out_features, bias, device=device), dtype)

    @classmethod
    def _float_options(cls, module: nn.Module) -> Options:
        return {**super()._float_options(module), "bias": module.bias is not None}

    def _finish(self) -> None:
        super()._finish()
        if not self._options["bias"]:
            self._buffers["bias"] = None  # as torch.nn.Linear's attribute is then

    def forward(self, input: Tensor) -> Tensor:
        if not is_eager(input):
            return self._run_as_operator(input)
        shape = input.shape
        if not shape or shape[-1] != self.in_features or input.dtype is not float32 or not input.is_cpu:
            self._check(input)
        if not input.is_contiguous():
            input = input.contiguous()
        output = allocator(input)(*shape[:-1], self.out_features)
        self._kernel()(input.data_ptr(), input.numel() // self.in_features, output.data_ptr())
        return output

    def _run_as_operator(self, input: Tensor) -> Tensor:
        if not is_tracing():
            self._check(input)
        return _ops.linear(input, self._tensors(), self._layer)

    # What is wrong with a call, in PyTorch's words.
    def _check(self, input: Tensor) -> None:
        require_tensor("Linear", "input", input)
        if input.is_nested:
            raise RuntimeError("Linear: input must not be a nested tensor: use input.to_padded_tensor(0.0)")
        if input.dtype is not float32:
            raise RuntimeError(
                f"Linear: input must be float32, got {input.dtype}: use input.float(); under autocast, call the "
                "layer with autocast disabled"
            )
        if input.dim() == 0 or input.size(-1) != self.in_features:
            rows = tuple(input.shape[:-1])
            count = 1
            for size in rows:
                count *= size
            last = input.shape[-1] if input.dim() else 0
            raise RuntimeError(
                f"mat1 and mat2 shapes cannot be multiplied ({count}x{last} and "
                f"{self.in_features}x{self.out_features}): input's last size must be in_features, {self.in_features}"
            )
        require_cpu("Linear", "input", input)
