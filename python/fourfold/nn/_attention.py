"""Multi-head attention whose four products with weights are int8."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.nn._base import dtype_name, empty_float_module
from fourfold.nn._linear import Linear

Self = TypeVar("Self", bound="MultiheadAttention")


class MultiheadAttention(nn.Module):
    """torch.nn.MultiheadAttention with int8 or float16 projections; the arguments are its own.

    The projections of query, key and value, and that of the output, are fourfold.nn.Linear layers: `q_proj`,
    `k_proj`, `v_proj` and `out_proj`. The products of queries with keys, and of their softmax with values, have no
    weights and stay float.

    Args:
        dtype: torch.qint8 or torch.float16.

    Inputs, outputs: as torch.nn.MultiheadAttention's.
    """

    # PyTorch's encoder layers look at these; not the same embedding dimension means: not their own fast path.
    _qkv_same_embed_dim = False

    embed_dim: int
    kdim: int
    vdim: int
    num_heads: int
    head_dim: int
    dropout: float
    batch_first: bool
    add_zero_attn: bool
    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    out_proj: Linear
    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = torch.qint8,
    ) -> None:
        super().__init__()
        arguments = (embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first)
        self._take(nn.MultiheadAttention(*arguments, device=device), dtype)

    @classmethod
    def from_float(
        cls: type[Self], module: nn.Module, dtype: Any = torch.qint8, *, shared: frozenset[str] = frozenset()
    ) -> Self:
        """The quantized counterpart of a torch.nn.MultiheadAttention, which stays as it is.

        Raises:
            TypeError: for a module of another class.
            ValueError: for another dtype than torch.qint8 and torch.float16.
            fourfold.Error: where a weight or bias is not finite.
        """
        if not isinstance(module, nn.MultiheadAttention):
            raise TypeError(
                f"{cls.__name__}.from_float: expected a torch.nn.MultiheadAttention, got {type(module).__name__}"
            )
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._take(module, dtype)
        return self.train(module.training)

    def _take(self, module: nn.MultiheadAttention, dtype: Any) -> None:
        dtype_name(dtype)
        for name in (
            "embed_dim",
            "kdim",
            "vdim",
            "num_heads",
            "head_dim",
            "dropout",
            "batch_first",
            "add_zero_attn",
        ):
            setattr(self, name, getattr(module, name))
        bias = module.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        else:
            weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        for name, weight, own_bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases):
            setattr(self, name, _quantized_linear(weight, own_bias, dtype))
        self.out_proj = _quantized_linear(module.out_proj.weight, module.out_proj.bias, dtype)
        for name in ("bias_k", "bias_v"):
            value = getattr(module, name)
            self.register_buffer(name, None if value is None else value.detach().clone())

    def dequantize(self) -> nn.MultiheadAttention:
        """A float module with the values that the quantized weights stand for."""
        has_bias = self.out_proj.bias is not None
        module = nn.MultiheadAttention(
            self.embed_dim,
            self.num_heads,
            self.dropout,
            has_bias,
            self.bias_k is not None,
            self.add_zero_attn,
            self.kdim,
            self.vdim,
            self.batch_first,
        )
        projections = (self.q_proj, self.k_proj, self.v_proj)
        with torch.no_grad():
            if module.in_proj_weight is not None:
                module.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
            else:
                for name, projection in zip(("q_proj", "k_proj", "v_proj"), projections):
                    getattr(module, f"{name}_weight").copy_(projection.weight)
            module.out_proj.weight.copy_(self.out_proj.weight)
            if has_bias:
                module.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
                module.out_proj.bias.copy_(self.out_proj.bias)
            for name in ("bias_k", "bias_v"):
                if getattr(self, name) is not None:
                    getattr(module, name).copy_(getattr(self, name))
        return module.train(self.training)

    @property
    def in_proj_weight(self) -> Tensor | None:
        """The float32 values of the three projections [3 * embed_dim, embed_dim]; None where their sizes differ."""
        if self.kdim != self.embed_dim or self.vdim != self.embed_dim:
            return None
        return torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The biases of the three projections [3 * embed_dim], or None."""
        if self.q_proj.bias is None:
            return None
        return torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = F._mha_shape_check(  # type: ignore[attr-defined]
            query, key, value, key_padding_mask, attn_mask, self.num_heads
        )
        key_padding_mask = F._canonical_mask(
            mask=key_padding_mask,
            mask_name="key_padding_mask",
            other_type=F._none_or_dtype(attn_mask),
            other_name="attn_mask",
            target_type=query.dtype,
        )
        attn_mask = F._canonical_mask(
            mask=attn_mask,
            mask_name="attn_mask",
            other_type=None,
            other_name="",
            target_type=query.dtype,
            check_other=False,
        )
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if not batched:
            query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        batch, targets, embed_dim = query.shape
        if embed_dim != self.embed_dim:
            raise AssertionError(
                f"was expecting embedding dimension of {self.embed_dim}, but got {embed_dim}"
            )
        if key.shape[:2] != value.shape[:2]:
            raise AssertionError(
                f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
            )
        if batch != key.shape[0]:
            raise AssertionError(f"query's batch size {batch} does not match key's {key.shape[0]}")

        k, v = self.k_proj(key), self.v_proj(value)
        added = 0  # positions behind those of the keys
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(batch, 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(batch, 1, -1)], dim=1)
            added += 1
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            added += 1
        q, k, v = self._heads(self.q_proj(query)), self._heads(k), self._heads(v)
        mask = self._mask(attn_mask, key_padding_mask, (batch, targets, key.shape[1]), added)

        weights: Tensor | None = None
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(dim=-1), dropout)
            output = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            output = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(output.transpose(1, 2).reshape(batch, targets, embed_dim))
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    # [batch, length, embed_dim] to [batch, heads, length, head_dim].
    def _heads(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)

    # Both masks as one that is added to scores [batch, heads, targets, sources + added], or None.
    def _mask(
        self,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        sizes: tuple[int, int, int],
        added: int,
    ) -> Tensor | None:
        batch, targets, sources = sizes
        if attn_mask is not None:
            wanted = (
                (targets, sources) if attn_mask.dim() == 2 else (batch * self.num_heads, targets, sources)
            )
            if attn_mask.shape != wanted:
                raise RuntimeError(
                    f"The shape of the {attn_mask.dim()}D attn_mask is {attn_mask.shape}, but should be {wanted}."
                )
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (batch, self.num_heads))
        if key_padding_mask is not None:
            if key_padding_mask.shape != (batch, sources):
                raise AssertionError(
                    f"expected key_padding_mask of shape {(batch, sources)}, but got {key_padding_mask.shape}"
                )
            key_padding_mask = key_padding_mask[:, None, None]
        masks = [F.pad(mask, (0, added)) for mask in (attn_mask, key_padding_mask) if mask is not None]
        return sum(masks[1:], masks[0]) if masks else None

    def _get_name(self) -> str:
        return "DynamicQuantizedMultiheadAttention"


def _quantized_linear(weight: Tensor, bias: Tensor | None, dtype: Any) -> Linear:
    rows, inputs = weight.shape
    module = empty_float_module(
        nn.Linear, {"in_features": inputs, "out_features": rows, "bias": bias is not None}
    )
    module.register_parameter("weight", nn.Parameter(weight.detach()))
    if bias is not None:
        module.register_parameter("bias", nn.Parameter(bias.detach()))
    return Linear.from_float(module, dtype)
