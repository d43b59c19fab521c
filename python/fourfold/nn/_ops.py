"""The layers as custom operators, for torch.compile, torch.export and torch.jit.trace.

They take the plain tensors, never packed weights: those would not outlive a saved program. A layer's options come
as one string, which layer_name() makes. No gradient flows: autograd does not see them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fourfold import _packing
from fourfold._layers import KINDS, Options
from fourfold._threads import follow_torch

float32 = torch.float32

_library = torch.library.Library("fourfold", "DEF")


def _define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """An operator that runs on the CPU, and whose fake gives shapes alone."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, run, "CPU")
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"fourfold::{name}", fake, lib=_library)
    return getattr(torch.ops.fourfold, name).default


@functools.cache
def _options(layer: str) -> Options:
    options: Options = json.loads(layer)
    return options


def _recurrent_shapes(layer: str, shape: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The shapes of output, h_n and c_n for an input of three dimensions."""
    options = _options(layer)
    kind, hidden = options["kind"], options["hidden_size"]
    directions = 2 if options.get("bidirectional", False) else 1
    state = options.get("proj_size", 0) or hidden
    batch = shape[0] if options.get("batch_first", False) else shape[1]
    states = options.get("num_layers", 1) * directions
    cell = [states, batch, hidden] if kind.startswith("LSTM") else [0]
    return [shape[0], shape[1], directions * state], [states, batch, state], cell


def _recurrent(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    tensors: list[Tensor],
    layer: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """LSTM, GRU, RNN and their cells on float32 [steps, batch, input_size], or [batch, steps, input_size].

    `lengths` is int64 [batch], or None. A cell's input is one step. Returns output, h_n and c_n, which is empty
    of all but an LSTM.
    """
    options = _options(layer)
    input, h0, c0 = (None if t is None else t.detach().contiguous() for t in (input, h0, c0))  # type: ignore[assignment]
    batch_first = options.get("batch_first", False)
    steps, batch = (input.shape[1], input.shape[0]) if batch_first else (input.shape[0], input.shape[1])
    output, h_n, c_n = (
        torch.empty(shape, dtype=float32, device="cpu") for shape in _recurrent_shapes(layer, input.shape)
    )
    handle = _packing.packed(layer, tensors)
    follow_torch()
    handle.forward(
        input.data_ptr(),
        steps,
        batch,
        batch_first,
        0 if h0 is None else h0.data_ptr(),
        0 if c0 is None else c0.data_ptr(),
        output.data_ptr(),
        0 if KINDS[options["kind"]].is_cell else h_n.data_ptr(),
        c_n.data_ptr(),
        () if lengths is None else lengths.tolist(),
    )
    if KINDS[options["kind"]].is_cell:
        h_n.copy_(output)
    return output, h_n, c_n


def _fake_recurrent(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    tensors: list[Tensor],
    layer: str,
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = _recurrent_shapes(layer, input.shape)
    output, h_n, c_n = (input.new_empty(shape, dtype=float32) for shape in shapes)
    return output, h_n, c_n


def _linear(input: Tensor, tensors: list[Tensor], layer: str) -> Tensor:
    """Linear on float32 [..., in_features]."""
    input = input.detach().contiguous()
    options = _options(layer)
    output = torch.empty((*input.shape[:-1], options["out_features"]), dtype=float32, device="cpu")
    handle = _packing.packed(layer, tensors)
    follow_torch()
    handle.forward(input.data_ptr(), input.numel() // options["in_features"], output.data_ptr())
    return output


def _fake_linear(input: Tensor, tensors: list[Tensor], layer: str) -> Tensor:
    return input.new_empty((*input.shape[:-1], _options(layer)["out_features"]), dtype=float32)


def look_up(forward: Callable[..., None], *arguments: Any) -> None:
    """Calls the core's table. Raises IndexError for an index out of range, as PyTorch's does."""
    try:
        forward(*arguments)
    except ValueError as error:
        if "out of range" in str(error):
            raise IndexError(f"index out of range in self: {error}") from None
        raise


def _embedding(input: Tensor, tensors: list[Tensor], layer: str) -> Tensor:
    """Embedding of int64 or int32 indices."""
    input = input.contiguous()
    output = torch.empty((*input.shape, _options(layer)["embedding_dim"]), dtype=float32, device="cpu")
    handle = _packing.packed(layer, tensors)
    follow_torch()
    look_up(handle.forward, _packing.named_array("input", input), output.data_ptr())
    return output


def _fake_embedding(input: Tensor, tensors: list[Tensor], layer: str) -> Tensor:
    return input.new_empty((*input.shape, _options(layer)["embedding_dim"]), dtype=float32)


def count_bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> Any:
    """How many bags EmbeddingBag makes of its arguments."""
    if offsets is None:
        return input.shape[0]
    return offsets.shape[0] - 1 if include_last_offset else offsets.shape[0]


def _bag_shape(layer: str, input: Tensor, offsets: Tensor | None) -> tuple[Any, int]:
    options = _options(layer)
    bags = count_bags(input, offsets, options.get("include_last_offset", False))
    return bags, options["embedding_dim"]


def _embedding_bag(
    input: Tensor,
    offsets: Tensor | None,
    per_sample_weights: Tensor | None,
    tensors: list[Tensor],
    layer: str,
) -> Tensor:
    """EmbeddingBag of int64 or int32 indices [bags, length], or [n] with offsets."""
    arrays = [
        None if tensor is None else tensor.detach().contiguous()
        for tensor in (input, offsets, per_sample_weights)
    ]
    handle = _packing.packed(layer, tensors)
    follow_torch()
    output = torch.empty(_bag_shape(layer, input, offsets), dtype=float32, device="cpu")
    named = [None if tensor is None else _packing.named_array("input", tensor) for tensor in arrays]
    look_up(handle.forward, *named, output.data_ptr())
    return output


def _fake_embedding_bag(
    input: Tensor,
    offsets: Tensor | None,
    per_sample_weights: Tensor | None,
    tensors: list[Tensor],
    layer: str,
) -> Tensor:
    return input.new_empty(_bag_shape(layer, input, offsets), dtype=float32)


recurrent = _define(
    "recurrent(Tensor input, Tensor? h0, Tensor? c0, Tensor? lengths, "
    "Tensor[] tensors, str layer) -> (Tensor, Tensor, Tensor)",
    _recurrent,
    _fake_recurrent,
)
linear = _define("linear(Tensor input, Tensor[] tensors, str layer) -> Tensor", _linear, _fake_linear)
embedding = _define(
    "embedding(Tensor input, Tensor[] tensors, str layer) -> Tensor", _embedding, _fake_embedding
)
embedding_bag = _define(
    "embedding_bag(Tensor input, Tensor? offsets, Tensor? per_sample_weights, "
    "Tensor[] tensors, str layer) -> Tensor",
    _embedding_bag,
    _fake_embedding_bag,
)
