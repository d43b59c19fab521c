"""Embedding and EmbeddingBag: tables of vectors looked up by index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fourfold import _packing
from fourfold.nn import _ops
from fourfold.nn._base import QuantizedModule, float32, is_eager, require_cpu, require_tensor

_INDEX_DTYPES = (torch.int64, torch.int32)


def _require_indices(kind: str, name: str, tensor: Any) -> None:
    require_tensor(kind, name, tensor)
    if tensor.dtype not in _INDEX_DTYPES:
        raise RuntimeError(
            f"{kind}: expected {name} to have one of the scalar types Long, Int; but got {tensor.dtype} instead"
        )
    require_cpu(kind, name, tensor)


class _Table(QuantizedModule):
    """What both share. max_norm changes weights as they are read, which quantized ones cannot do."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def _take(self, module: nn.Module, dtype: Any, shared: frozenset[str] = frozenset()) -> None:
        if module.max_norm is not None:
            raise ValueError(
                f"{self.KIND}: max_norm changes weights as they are read; quantized ones stay as they are"
            )
        super()._take(module, dtype, shared)


class Embedding(_Table):
    """torch.nn.Embedding with int8 or float16 weights; the arguments are its own, and so are the initial weights.

    Args:
        dtype: torch.qint8 (or torch.quint8, PyTorch's name for an embedding's) or torch.float16.

    Input: int64 or int32 of any shape. Output: float32 of that shape and [embedding_dim] after it.

    Raises:
        IndexError: for an index out of range.
        RuntimeError: for an input of another dtype.
        ValueError: where max_norm is given.
    """

    KIND = "Embedding"
    FLOAT_MODULE = nn.Embedding
    OPTIONS = ("num_embeddings", "embedding_dim", "padding_idx")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        table = nn.Embedding(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            device=device,
        )
        self._take(table, dtype)

    def forward(self, input: Tensor) -> Tensor:
        _require_indices("Embedding", "input", input)
        if not is_eager(input):
            return _ops.embedding(input, self._tensors(), self._layer)
        input = input.contiguous()
        output = torch.empty((*input.shape, self.embedding_dim), dtype=float32, device="cpu")
        _ops.look_up(self._kernel(), _packing.named_array("input", input), output.data_ptr())
        return output


class EmbeddingBag(_Table):
    """torch.nn.EmbeddingBag with int8 or float16 weights: see Embedding.

    Inputs: input, offsets, per_sample_weights, as torch.nn.EmbeddingBag takes them. Output: float32
    [bags, embedding_dim].

    Raises:
        IndexError: for an index out of range.
        ValueError: for shapes or offsets that do not fit.
        RuntimeError: for an input of another dtype.
        NotImplementedError: for per_sample_weights in another mode than sum.
    """

    KIND = "EmbeddingBag"
    FLOAT_MODULE = nn.EmbeddingBag
    OPTIONS = ("num_embeddings", "embedding_dim", "mode", "include_last_offset", "padding_idx")

    mode: str
    include_last_offset: bool

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        table = nn.EmbeddingBag(
            num_embeddings,
            embedding_dim,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            include_last_offset=include_last_offset,
            padding_idx=padding_idx,
            device=device,
        )
        self._take(table, dtype)

    def _take(self, module: nn.Module, dtype: Any, shared: frozenset[str] = frozenset()) -> None:
        if module.mode not in ("sum", "mean", "max"):
            raise ValueError(f"mode has to be one of sum, mean or max, got {module.mode!r}")
        super()._take(module, dtype, shared)

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        self._check(input, offsets, per_sample_weights)
        if not is_eager(input):
            return _ops.embedding_bag(input, offsets, per_sample_weights, self._tensors(), self._layer)
        bags = _ops.count_bags(input, offsets, self.include_last_offset)
        output = torch.empty((bags, self.embedding_dim), dtype=float32, device="cpu")
        arrays = [
            None if tensor is None else tensor.detach().contiguous()
            for tensor in (input, offsets, per_sample_weights)
        ]
        named = [None if tensor is None else _packing.named_array("input", tensor) for tensor in arrays]
        _ops.look_up(self._kernel(), *named, output.data_ptr())
        return output

    # What is wrong with a call, in PyTorch's words; the core looks at the values.
    def _check(self, input: Tensor, offsets: Tensor | None, per_sample_weights: Tensor | None) -> None:
        _require_indices("EmbeddingBag", "input", input)
        if input.dim() not in (1, 2):
            raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
        if input.dim() == 2:
            if offsets is not None:
                raise ValueError(
                    "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of "
                    f"fixed length sequences. However, found offsets of type {type(offsets)}"
                )
        elif offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        if offsets is not None:
            _require_indices("EmbeddingBag", "offsets", offsets)
            if offsets.dim() != 1:
                raise ValueError("offsets has to be a 1D Tensor")
        if per_sample_weights is None:
            return
        require_tensor("EmbeddingBag", "per_sample_weights", per_sample_weights)
        if per_sample_weights.shape != input.shape:
            raise ValueError(
                f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have "
                f"the same shape as the input ({input.shape})"
            )
        if self.mode != "sum":
            raise NotImplementedError(
                "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for "
                f"mode='sum' (got mode='{self.mode}').."
            )
        if per_sample_weights.dtype is not float32:
            raise RuntimeError(
                f"EmbeddingBag: per_sample_weights must be float32, got {per_sample_weights.dtype}"
            )
        require_cpu("EmbeddingBag", "per_sample_weights", per_sample_weights)
