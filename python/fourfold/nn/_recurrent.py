"""LSTM, GRU and RNN over whole sequences."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

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

_SEQUENCE_OPTIONS = (
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
)


class Recurrent(QuantizedModule):
    """What LSTM, GRU and RNN share."""

    OPTIONS: ClassVar[tuple[str, ...]] = _SEQUENCE_OPTIONS

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    mode: str

    def _finish(self) -> None:
        super()._finish()
        directions = 2 if self.bidirectional else 1
        projection = getattr(self, "proj_size", 0)
        self._states = self.num_layers * directions
        self._state_size = projection or self.hidden_size
        self._width = directions * self._state_size
        self._has_cell = self.KIND == "LSTM"
        self.proj_size = projection
        self.mode = self.KIND

    def flatten_parameters(self) -> None:
        """Does nothing: PyTorch's layers have it, and models call it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The float32 values of each layer's and direction's parameters, as PyTorch's layers list them."""
        per_direction = len(self._parameter_list()) // self._states
        names = [parameter.name for parameter in self._parameter_list()]
        groups = [names[i : i + per_direction] for i in range(0, len(names), per_direction)]
        return [[getattr(self, name) for name in group] for group in groups]

    # input: [steps, batch, input_size], with batch_first [batch, steps, input_size], or [steps, input_size]; or a
    # PackedSequence, and then the output is one.
    # h0, c0: [states, batch, size] or, of the last, [states, size]; or None. Returns output, h_n and c_n, which is
    # None of all but an LSTM.
    def _run(self, input: Any, h0: Tensor | None, c0: Tensor | None) -> tuple[Any, Tensor, Tensor | None]:
        if not is_eager(input):
            if isinstance(input, PackedSequence):
                return self._run_packed(input, h0, c0)
            return self._run_as_operator(input, h0, c0, None)
        shape = input.shape
        batch_first = self.batch_first
        if len(shape) == 3:
            if batch_first:
                batch, steps, size = shape
            else:
                steps, batch, size = shape
            states = self._states
            h_shape: tuple[int, ...] = (states, batch, self._state_size)
            c_shape: tuple[int, ...] = (states, batch, self.hidden_size)
            output_shape: tuple[int, ...] = (shape[0], shape[1], self._width)
        elif len(shape) == 2:
            steps, size = shape
            batch, batch_first = 1, False
            h_shape, c_shape = (self._states, self._state_size), (self._states, self.hidden_size)
            output_shape = (steps, self._width)
        else:
            size = -1
        # All that can be wrong, in one condition, so that what is right is quick; the words are in _refuse.
        try:
            wrong = (
                size != self.input_size
                or not steps
                or not batch
                or input.dtype is not float32
                or not input.is_cpu
                or (h0 is not None and (h0.shape != h_shape or h0.dtype is not float32 or not h0.is_cpu))
                or (c0 is not None and (c0.shape != c_shape or c0.dtype is not float32 or not c0.is_cpu))
            )
        except AttributeError:  # a state that is no tensor
            wrong = True
        if wrong:
            self._refuse(input, h0, c0)
        if not input.is_contiguous():
            input = input.contiguous()
        if h0 is None:
            h0_address = 0
        else:
            if not h0.is_contiguous():
                h0 = h0.contiguous()
            h0_address = h0.data_ptr()
        if c0 is None:
            c0_address = 0
        else:
            if not c0.is_contiguous():
                c0 = c0.contiguous()
            c0_address = c0.data_ptr()
        empty = allocator(input)
        output = empty(*output_shape)  # not as a tuple, which would cost half a microsecond
        h_n = empty(*h_shape)
        c_n, c_address = None, 0
        if self._has_cell:
            c_n = empty(*c_shape)
            c_address = c_n.data_ptr()
        self._kernel()(
            input.data_ptr(),
            steps,
            batch,
            batch_first,
            h0_address,
            c0_address,
            output.data_ptr(),
            h_n.data_ptr(),
            c_address,
            (),
        )
        return output, h_n, c_n

    def _run_as_operator(
        self, input: Tensor, h0: Tensor | None, c0: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if not is_tracing():
            self._check(input, h0, c0)
        batched = input.dim() == 3
        if not batched:
            batch_dim = 0 if self.batch_first else 1
            input = input.unsqueeze(batch_dim)
            h0 = None if h0 is None else h0.unsqueeze(1)
            c0 = None if c0 is None else c0.unsqueeze(1)
        output, h_n, c_n = _ops.recurrent(input, h0, c0, lengths, self._tensors(), self._layer)
        if not batched:
            output, h_n = output.squeeze(batch_dim), h_n.squeeze(1)
            c_n = c_n.squeeze(1) if self._has_cell else c_n
        return output, h_n, c_n if self._has_cell else None

    def _run_packed(
        self, input: PackedSequence, h0: Tensor | None, c0: Tensor | None
    ) -> tuple[PackedSequence, Tensor, Tensor | None]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if data.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {data.dim()}")
        if data.dtype is not float32:
            self._refuse_dtype("input", data)
        if data.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {data.size(-1)}"
            )
        require_cpu(self.KIND, "input", data)
        self._check_states(h0, c0, True, int(batch_sizes[0]))
        if sorted_indices is not None:
            h0 = None if h0 is None else h0.index_select(1, sorted_indices)
            c0 = None if c0 is None else c0.index_select(1, sorted_indices)
        padded, lengths = torch._VF._pad_packed_sequence(
            data, batch_sizes, self.batch_first, 0.0, len(batch_sizes)
        )
        output, h_n, c_n = _ops.recurrent(padded, h0, c0, lengths, self._tensors(), self._layer)
        output, _ = torch._VF._pack_padded_sequence(output, lengths, self.batch_first)
        if unsorted_indices is not None:
            h_n = h_n.index_select(1, unsorted_indices)
            c_n = c_n.index_select(1, unsorted_indices) if self._has_cell else c_n
        result = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return result, h_n, c_n if self._has_cell else None

    # ---- What is wrong with a call, in PyTorch's words ----

    def _refuse(self, input: Tensor, h0: Tensor | None, c0: Tensor | None) -> None:
        self._check(input, h0, c0)
        raise AssertionError("a call was refused without a reason")  # the two checks disagree

    def _refuse_dtype(self, name: str, tensor: Tensor) -> None:
        raise ValueError(
            f"RNN {name} dtype ({tensor.dtype}) does not match the quantized layer's activations (torch.float32). "
            f"Convert {name}: {name}.float(); under autocast, call the layer with autocast disabled"
        )

    def _check(self, input: Tensor, h0: Tensor | None, c0: Tensor | None) -> None:
        require_tensor(self.KIND, "input", input)
        if input.dtype is not float32:
            self._refuse_dtype("input", input)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.KIND}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        if input.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}"
            )
        require_cpu(self.KIND, "input", input)
        batched = input.dim() == 3
        batch_first = batched and self.batch_first
        if input.size(1 if batch_first else 0) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        batch = input.size(0 if batch_first else 1) if batched else 1
        if batch == 0:
            raise RuntimeError("Expected batch size to be larger than 0 in RNN")
        self._check_states(h0, c0, batched, batch)

    def _check_states(self, h0: Tensor | None, c0: Tensor | None, batched: bool, batch: int) -> None:
        self._check_dims(h0, c0, batched)
        for index, (state, size) in enumerate(((h0, self._state_size), (c0, self.hidden_size))):
            if state is None:
                continue
            name = f"hidden[{index}]" if self._has_cell else "hidden"
            expected = (self._states, batch, size) if batched else (self._states, size)
            if state.shape != expected:
                shown = (self._states, batch, size) if batched else (self._states, 1, size)
                got = list(state.shape) if batched else [state.shape[0], 1, *state.shape[1:]]
                raise RuntimeError(f"Expected {name} size {shown}, got {got}")
            if state.dtype is not float32:
                self._refuse_dtype(name, state)
            require_cpu(self.KIND, name, state)

    def _check_dims(self, h0: Tensor | None, c0: Tensor | None, batched: bool) -> None:
        wanted, kind = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        for name, state in (("hx[0]" if self._has_cell else "hx", h0), ("hx[1]", c0)):
            if state is not None:
                require_tensor(self.KIND, name, state)
        if (
            self._has_cell
            and h0 is not None
            and c0 is not None
            and (h0.dim() != wanted or c0.dim() != wanted)
        ):
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {wanted}-D "
                f"but got ({h0.dim()}-D, {c0.dim()}-D) tensors"
            )
        if not self._has_cell and h0 is not None and h0.dim() != wanted:
            raise RuntimeError(f"For {kind} input, hx should also be {wanted}-D but got {h0.dim()}-D tensor")


class LSTM(Recurrent):
    """torch.nn.LSTM with int8 or float16 weights; the arguments are its own, and so are the initial weights.

    Args:
        dtype: torch.qint8 or torch.float16.

    Inputs: input, (h_0, c_0)
        * input: float32 [steps, batch, input_size], with batch_first [batch, steps, input_size], or
          [steps, input_size], or a PackedSequence.
        * h_0, c_0: [num_layers * directions, batch, size], without the batch for an input without one; zeros
          where they are not given. The size is hidden_size, and of h_0 proj_size where that is given.

    Outputs: output, (h_n, c_n), as torch.nn.LSTM's.

    Raises:
        ValueError, RuntimeError: as torch.nn.LSTM does, for a wrong shape or dtype.
    """

    KIND = "LSTM"
    FLOAT_MODULE = nn.LSTM
    OPTIONS = (*_SEQUENCE_OPTIONS, "proj_size")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        arguments = (
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
        )
        self._take(nn.LSTM(*arguments, device=device), dtype)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        h0, c0 = (None, None) if hx is None else hx
        output, h_n, c_n = self._run(input, h0, c0)
        return output, (h_n, c_n)  # type: ignore[return-value]  # an LSTM has a c


class _WithoutCell(Recurrent):
    """GRU and RNN: their state is h alone."""

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        output, h_n, _ = self._run(input, hx, None)
        return output, h_n


class GRU(_WithoutCell):
    """torch.nn.GRU with int8 or float16 weights: see LSTM. Inputs: input, h_0. Outputs: output, h_n."""

    KIND = "GRU"
    FLOAT_MODULE = nn.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        arguments = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self._take(nn.GRU(*arguments, device=device), dtype)


class RNN(_WithoutCell):
    """torch.nn.RNN with int8 or float16 weights: see LSTM. Inputs: input, h_0. Outputs: output, h_n."""

    KIND = "RNN"
    FLOAT_MODULE = nn.RNN
    OPTIONS = (*_SEQUENCE_OPTIONS[:3], "nonlinearity", *_SEQUENCE_OPTIONS[3:])

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        arguments = (
            input_size,
            hidden_size,
            num_layers,
            nonlinearity,
            bias,
            batch_first,
            dropout,
            bidirectional,
        )
        self._take(nn.RNN(*arguments, device=device), dtype)

    def _finish(self) -> None:
        super()._finish()
        self.mode = f"RNN_{self.nonlinearity.upper()}"
