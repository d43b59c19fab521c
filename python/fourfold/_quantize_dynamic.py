"""quantize_dynamic: a model's layers become their quantized counterparts."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fourfold import _core
from fourfold import nn as quantized
from fourfold.nn._base import QuantizedModule, dtype_name

Spec = Union[None, Iterable[Any], Mapping[Any, Any]]

# What each float class becomes.
MAPPING: dict[type[nn.Module], Any] = {
    nn.Linear: quantized.Linear,
    nn.LSTM: quantized.LSTM,
    nn.GRU: quantized.GRU,
    nn.RNN: quantized.RNN,
    nn.LSTMCell: quantized.LSTMCell,
    nn.GRUCell: quantized.GRUCell,
    nn.RNNCell: quantized.RNNCell,
    nn.Embedding: quantized.Embedding,
    nn.EmbeddingBag: quantized.EmbeddingBag,
    nn.MultiheadAttention: quantized.MultiheadAttention,
}
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_DEFAULT_TYPES = (nn.Linear, nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
_UNSAID = object()  # where the spec says nothing of a module; None says to leave it alone

# What a float module carries besides its parameters, and its counterpart goes on with.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def quantize_dynamic(
    model: nn.Module,
    qconfig_spec: Spec = None,
    dtype: Any = torch.qint8,
    mapping: Mapping[type[nn.Module], Any] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """A copy of a float model, in evaluation mode, whose layers have int8 (or float16) weights.

    A drop-in for torch.ao.quantization.quantize_dynamic. Only modules of exactly the classes in question are
    quantized; their subclasses stay as they are.

    Args:
        model: a float model, or one layer.
        qconfig_spec: what to quantize.
            * None: all Linear, LSTM, GRU, RNN and cell layers; for torch.quint8 all embeddings.
            * a set of module classes, or dotted names of modules: these, and what is below a name.
            * a dict from a class or a dotted name to a QConfig of PyTorch's, a dtype, or None, which leaves alone;
              the name '' stands for all. A name goes before a class, a longer name before a shorter, and '' last.
        dtype: torch.qint8 or torch.float16, or torch.quint8 for embeddings; torch.int8 and names are taken too.
        mapping: from float classes to classes with from_float, instead of fourfold.nn's.
        inplace: change the model itself.

    Returns:
        The quantized model. A module that is reachable under several names is quantized once, and weights that are
        tied stay tied.

    Raises:
        TypeError: where the model is no module.
        ValueError: for a name that the model does not have, suggesting the nearest; for a dtype that is not
            supported.
        fourfold.Error: where a weight is not finite. The model is unchanged then.

    Warns:
        UserWarning: where nothing matched, and for a MultiheadAttention that stays float though Linear layers are
            quantized.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"quantize_dynamic: model must be a torch.nn.Module, got {type(model).__name__}")
    table = MAPPING if mapping is None else dict(mapping)
    spec = normalized_spec(qconfig_spec, dtype, table)
    targets = find_targets(model, spec, table)
    converted = {
        module: _convert(module, target, table[kind_of(module)], kept)
        for (module, target), kept in zip(targets.items(), _shared_with_others(model, targets))
    }
    _tie(converted)
    if not converted:
        warnings.warn(
            f"quantize_dynamic: nothing of the model matched{left_out(spec)}, nothing is quantized:\n{model}",
            stacklevel=2,
        )
    _report_attention(model, targets)
    result = replace_modules(model, converted) if inplace else replace_in_copy(model, converted)
    hold_off_fast_paths(result)
    return result.eval()


# ---- What to quantize ----


class Target(NamedTuple):
    name: str  # the first under which the module is reached
    dtype: str  # "qint8" or "float16"


def normalized_spec(spec: Spec, dtype: Any, table: Mapping[type[nn.Module], Any]) -> dict[Any, str | None]:
    """From a class or a dotted name to a format, or None, which leaves alone."""
    dtype_name(dtype)
    if isinstance(spec, (str, type)):
        raise TypeError(
            f"quantize_dynamic: qconfig_spec must be None, a set or a dict, got {spec!r}: use {{...}}"
        )
    if spec is None:
        kinds = _EMBEDDINGS if _is_quint8(dtype) else _DEFAULT_TYPES
        entries = {kind: dtype for kind in kinds if kind in table}
    elif isinstance(spec, Mapping):
        entries = dict(spec)
    else:
        entries = dict.fromkeys(spec, dtype)
    normalized: dict[Any, str | None] = {}
    for key, value in entries.items():
        if not isinstance(key, str) and not (isinstance(key, type) and issubclass(key, nn.Module)):
            raise TypeError(
                f"quantize_dynamic: qconfig_spec: expected a module class or a dotted name, got {key!r}"
            )
        value = _weight_dtype(value)
        if _is_quint8(value) and key in table and key not in _EMBEDDINGS:
            raise ValueError(f"quantize_dynamic: torch.quint8 is for embeddings, not for {key.__name__}")
        normalized[key] = None if value is None else dtype_name(value)
    return normalized


def names_of(keys: Iterable[Any]) -> str:
    """The classes and dotted names of a spec, for messages."""
    return ", ".join((key or "''") if isinstance(key, str) else key.__name__ for key in keys)


def left_out(spec: dict[Any, str | None]) -> str:
    """What a spec leaves alone, in brackets, for messages; empty where that is nothing."""
    names = names_of(key for key, value in spec.items() if value is None)
    return f" (left out: {names})" if names else ""


def _is_quint8(dtype: Any) -> bool:
    return str(dtype).removeprefix("torch.") == "quint8"


def _weight_dtype(value: Any) -> Any:
    """The dtype of the weights that a QConfig of PyTorch's asks for; other values as they are."""
    if not hasattr(value, "weight"):
        return value
    return (value.weight() if callable(value.weight) else value.weight).dtype


def kind_of(module: nn.Module) -> type[nn.Module]:
    return parametrize.type_before_parametrizations(module)


def find_targets(
    model: nn.Module, spec: dict[Any, str | None], table: Mapping[type[nn.Module], Any]
) -> dict[nn.Module, Target]:
    """The modules to quantize, each once, in the model's order."""
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for key in spec:
        if isinstance(key, str) and key not in names:
            nearest = difflib.get_close_matches(key, names[1:], 1, 0.0)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
            raise ValueError(f"quantize_dynamic: qconfig_spec: the model has no module named '{key}'{hint}")
    found: dict[nn.Module, Target] = {}

    def walk(module: nn.Module, name: str, by_name: Any, by_class: Any) -> None:
        kind = kind_of(module)
        if name and name in spec:
            by_name = spec[name]
        if kind in spec:
            by_class = spec[kind]
        said: list[Any] = [
            decision for decision in (by_name, by_class, spec.get("", _UNSAID)) if decision is not _UNSAID
        ]
        if kind in table and said and said[0] is not None:
            found.setdefault(module, Target(name, said[0]))
            return
        for child_name, child in module._modules.items():
            if child is not None:
                walk(child, f"{name}.{child_name}" if name else child_name, by_name, by_class)

    walk(model, "", _UNSAID, _UNSAID)
    return found


def _shared_with_others(model: nn.Module, targets: Mapping[nn.Module, Target]) -> Iterator[frozenset[str]]:
    """For each target, the parameters that a module uses which is not quantized, or to another format."""
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(module)
    for module, target in targets.items():
        yield frozenset(
            name
            for name, parameter in module._parameters.items()
            if parameter is not None
            and any(
                owner not in targets or targets[owner].dtype != target.dtype
                for owner in owners[id(parameter)]
            )
        )


# ---- Converting ----


def _convert(module: nn.Module, target: Target, to: Any, kept: frozenset[str]) -> nn.Module:
    _fold(module)
    try:
        if issubclass(to, (QuantizedModule, quantized.MultiheadAttention)):
            return to.from_float(module, target.dtype, shared=kept)
        return to.from_float(module)
    except _core.Error as error:
        where = f"{target.name}." if target.name else ""
        raise _core.Error(f"quantize_dynamic: {where}{error}") from None


def _fold(module: nn.Module) -> None:
    """Sets the weights that a pre-hook computes before each call, as it would; those of `parametrize` need none."""
    with torch.no_grad():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))
            elif isinstance(hook, WeightNorm):
                setattr(module, hook.name, hook.compute_weight(module))
            elif isinstance(hook, BasePruningMethod):
                setattr(module, hook._tensor_name, hook.apply_mask(module))


def _is_folded(hook: Any) -> bool:
    return isinstance(hook, (SpectralNorm, WeightNorm, BasePruningMethod))


def _tie(converted: Mapping[nn.Module, nn.Module]) -> None:
    """Parameters that float modules shared, and that were all quantized alike, are one tensor again."""
    first: dict[int, tuple[Any, str]] = {}
    for module, new in converted.items():
        if not isinstance(new, QuantizedModule):
            continue
        for name, parameter in module._parameters.items():
            if parameter is None or name in new._parameters:
                continue
            other, other_name = first.setdefault(id(parameter), (new, name))
            if other is new or new._dtype != other._dtype:
                continue
            for suffix in ("", "_scale"):
                if name + suffix in new._buffers:
                    new._buffers[name + suffix] = other._buffers[other_name + suffix]


def _report_attention(model: nn.Module, targets: Mapping[nn.Module, Target]) -> None:
    if not any(kind_of(module) is nn.Linear for module in targets):
        return
    left = [
        name or type(module).__name__
        for name, module in model.named_modules()
        if kind_of(module) is nn.MultiheadAttention and module not in targets
    ]
    if left:
        warnings.warn(
            f"quantize_dynamic: these stay float, as their projections are no nn.Linear: {', '.join(left)}; "
            "add nn.MultiheadAttention to qconfig_spec to quantize them",
            stacklevel=3,
        )


# ---- Replacing ----


def replace_modules(model: nn.Module, converted: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts each converted module in the place of its original, wherever the model has it; hooks go over."""
    for module, new in converted.items():
        for hooks in _HOOKS:
            new.__dict__[hooks] = module.__dict__[
                hooks
            ]  # the very dict, so that handles to remove one still work
        _drop_folded(new)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in converted:
                parent._modules[name] = converted[child]
    if model in converted:  # the caller's own object has to become the quantized layer
        new = converted[model]
        model.__dict__.clear()
        model.__dict__.update(new.__dict__)
        model.__class__ = new.__class__
    return model


def replace_in_copy(model: nn.Module, converted: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A copy of the model that has each converted module in the place of its original; hooks are copied."""
    # Where deepcopy comes to a float module it finds the quantized one, as if it had been copied already: so no
    # float weight is copied, and whatever refers to the module is changed as well.
    memo: dict[int, Any] = {id(module): new for module, new in converted.items()}
    for module in model.modules():
        for value in module.__dict__.values():
            # What a pre-hook such as the old weight_norm computed: deepcopy refuses it, and the hook makes it anew.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    result: nn.Module = copy.deepcopy(model, memo)
    for module, new in converted.items():
        for hooks in _HOOKS:
            new.__dict__[hooks] = copy.deepcopy(module.__dict__[hooks], memo)
        _drop_folded(new)
        for name, parameter in new._parameters.items():
            new._parameters[name] = copy.deepcopy(parameter, memo)
    return result


def _drop_folded(module: nn.Module) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if _is_folded(hook):
            del module._forward_pre_hooks[key]


def hold_off_fast_paths(model: nn.Module) -> None:
    """Keeps PyTorch's transformer encoders from reading .weight themselves, which would compute in float."""
    for module in model.modules():
        if not any(
            isinstance(part, (QuantizedModule, quantized.MultiheadAttention)) for part in module.modules()
        ):
            continue
        if isinstance(module, nn.TransformerEncoderLayer) and no_op not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(no_op)  # they take the fast path only where there are no hooks
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def no_op(module: nn.Module, args: Any) -> None:
    """A forward pre-hook that does nothing."""
