"""LSTMCell, GRUCell and RNNCell: one step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

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


class Cell(QuantizedModule):
    """What the cells share."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("input_size", "hidden_size", "bias")

    input_size: int
    hidden_size: int
    bias: bool

    # input: [batch, input_size] or [input_size]; h0, c0: [batch, hidden_size] or [hidden_size], or None. Returns h
    # and c, which is None of all but an LSTMCell.
    def _run(self, input: Tensor, h0: Tensor | None, c0: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not is_eager(input):
            return self._run_as_operator(input, h0, c0)
        shape = input.shape
        dim = len(shape)
        if dim == 2:
            batch, size = shape
        elif dim == 1:
            batch, size = 1, shape[0]
        else:
            size = -1
        state_shape = (*shape[:-1], self.hidden_size)
        # All that can be wrong, in one condition, so that what is right is quick; the words are in _check.
        try:
            wrong = (
                size != self.input_size
                or not batch
                or input.dtype is not float32
                or not input.is_cpu
                or (h0 is not None and (h0.shape != state_shape or h0.dtype is not float32 or not h0.is_cpu))
                or (c0 is not None and (c0.shape != state_shape or c0.dtype is not float32 or not c0.is_cpu))
            )
        except AttributeError:  # a state that is no tensor
            wrong = True
        if wrong:
            self._check(input, h0, c0)
            raise AssertionError("a call was refused without a reason")  # the two checks disagree
        if not input.is_contiguous():
            input = input.contiguous()
        if h0 is not None and not h0.is_contiguous():
            h0 = h0.contiguous()
        if c0 is not None and not c0.is_contiguous():
            c0 = c0.contiguous()
        empty = allocator(input)
        h = empty(*state_shape)
        c = empty(*state_shape) if self.KIND == "LSTMCell" else None
        self._kernel()(
            input.data_ptr(),
            1,
            batch,
            False,
            0 if h0 is None else h0.data_ptr(),
            0 if c0 is None else c0.data_ptr(),
            h.data_ptr(),
            0,
            0 if c is None else c.data_ptr(),
            (),
        )
        return h, c

    def _run_as_operator(
        self, input: Tensor, h0: Tensor | None, c0: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not is_tracing():
            self._check(input, h0, c0)
        shape = (*input.shape[:-1], self.hidden_size)
        state = (1, -1, self.hidden_size)
        h0, c0 = (None if tensor is None else tensor.reshape(state) for tensor in (h0, c0))
        rows = input.reshape(1, -1, self.input_size)
        _, h, c = _ops.recurrent(rows, h0, c0, None, self._tensors(), self._layer)
        return h.reshape(shape), c.reshape(shape) if self.KIND == "LSTMCell" else None

    # What is wrong with a call, in PyTorch's words.
    def _check(self, input: Tensor, h0: Tensor | None, c0: Tensor | None) -> None:
        kind = self.KIND
        require_tensor(kind, "input", input)
        if input.dim() not in (1, 2):
            raise ValueError(f"{kind}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.size(-1) != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.size(-1)}, expected {self.input_size}"
            )
        batched = input.dim() == 2
        if batched and input.size(0) == 0:
            raise RuntimeError(f"{kind}: Expected batch size to be larger than 0")
        for index, state in enumerate((h0, c0)):
            if state is None:
                continue
            name = f"hx[{index}]" if kind == "LSTMCell" else "hidden"
            require_tensor(kind, name, state)
            if state.dim() not in (1, 2):
                raise ValueError(f"{kind}: Expected {name} to be 1D or 2D, got {state.dim()}D instead")
            if batched and (state.dim() == 1 or state.size(0) != input.size(0)):
                rows = state.size(0) if state.dim() == 2 else 1
                raise RuntimeError(
                    f"Input batch size {input.size(0)} doesn't match hidden[{index}] batch size {rows}"
                )
            if not batched and state.dim() != 1:
                raise RuntimeError(f"{kind}: for an input of 1D, {name} must be 1D, got {state.dim()}D")
            if state.size(-1) != self.hidden_size:
                raise RuntimeError(
                    f"hidden[{index}] has inconsistent hidden_size: got {state.size(-1)}, "
                    f"expected {self.hidden_size}"
                )
        for name, tensor in (("input", input), ("hx[0]" if kind == "LSTMCell" else "hx", h0), ("hx[1]", c0)):
            if tensor is None:
                continue
            if tensor.dtype is not float32:
                raise RuntimeError(
                    f"{kind}: {name} must be float32, got {tensor.dtype}: use {name}.float(); under autocast, call "
                    "the layer with autocast disabled"
                )
            require_cpu(kind, name, tensor)


class LSTMCell(Cell):
    """torch.nn.LSTMCell with int8 or float16 weights.

    Args:
        dtype: torch.qint8 or torch.float16.

    Inputs: input, (h_0, c_0): float32 [batch, input_size] and [batch, hidden_size], or all without the batch; a
    state that is not given is zeros.

    Outputs: (h_1, c_1), of the state's shape.

    Raises:
        ValueError, RuntimeError: as torch.nn.LSTMCell does, for a wrong shape or dtype.
    """

    KIND = "LSTMCell"
    FLOAT_MODULE = nn.LSTMCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        self._take(nn.LSTMCell(input_size, hidden_size, bias, device=device), dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h0, c0 = (None, None) if hx is None else hx
        h, c = self._run(input, h0, c0)
        assert c is not None
        return h, c


class GRUCell(Cell):
    """torch.nn.GRUCell with int8 or float16 weights: see LSTMCell. Inputs: input, h_0. Output: h_1."""

    KIND = "GRUCell"
    FLOAT_MODULE = nn.GRUCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        self._take(nn.GRUCell(input_size, hidden_size, bias, device=device), dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(input, hx, None)[0]


class RNNCell(Cell):
    """torch.nn.RNNCell with int8 or float16 weights: see LSTMCell. Inputs: input, h_0. Output: h_1."""

    KIND = "RNNCell"
    FLOAT_MODULE = nn.RNNCell
    OPTIONS = (*Cell.OPTIONS, "nonlinearity")

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        self._take(nn.RNNCell(input_size, hidden_size, bias, nonlinearity, device=device), dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(input, hx, None)[0]
