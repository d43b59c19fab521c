"""What the layers are made of: their options, parameters and names, as the C++ core and its files have them.

Nothing here needs PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from fourfold import _core

Options = dict[str, Any]


class Parameter(NamedTuple):
    """A tensor of a layer. A weight is quantized, and then has a scale a row; others stay float32."""

    name: str
    shape: tuple[int, ...]
    is_weight: bool


class Kind(NamedTuple):
    """A kind of layer: its name in PyTorch, and in files."""

    name: str
    core: Any  # packs the parameters and runs them
    gates: int = 0  # of a recurrent kind
    is_cell: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("Linear", _core.Linear),
        Kind("LSTM", _core.LSTM, 4),
        Kind("GRU", _core.GRU, 3),
        Kind("RNN", _core.RNN, 1),
        Kind("LSTMCell", _core.LSTMCell, 4, True),
        Kind("GRUCell", _core.GRUCell, 3, True),
        Kind("RNNCell", _core.RNNCell, 1, True),
        Kind("Embedding", _core.Embedding),
        Kind("EmbeddingBag", _core.EmbeddingBag),
    )
}


def parameters(kind: str, options: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a layer, in the order of its state dict."""
    if kind == "Linear":
        weight = Parameter("weight", (options["out_features"], options["in_features"]), True)
        bias = [Parameter("bias", (options["out_features"],), False)] if options.get("bias", True) else []
        return [weight, *bias]
    if kind in ("Embedding", "EmbeddingBag"):
        return [Parameter("weight", (options["num_embeddings"], options["embedding_dim"]), True)]
    return _recurrent_parameters(KINDS[kind], options)


def _recurrent_parameters(kind: Kind, options: Mapping[str, Any]) -> list[Parameter]:
    hidden = options["hidden_size"]
    rows = kind.gates * hidden
    projection = options.get("proj_size", 0)
    directions = 2 if options.get("bidirectional", False) else 1
    found = []
    for layer in range(options.get("num_layers", 1)):
        inputs = (projection or hidden) * directions if layer else options["input_size"]
        for direction in range(directions):
            suffix = "" if kind.is_cell else f"_l{layer}" + ("_reverse" if direction else "")
            found.append(Parameter(f"weight_ih{suffix}", (rows, inputs), True))
            found.append(Parameter(f"weight_hh{suffix}", (rows, projection or hidden), True))
            if options.get("bias", True):
                found.append(Parameter(f"bias_ih{suffix}", (rows,), False))
                found.append(Parameter(f"bias_hh{suffix}", (rows,), False))
            if projection:
                found.append(Parameter(f"weight_hr{suffix}", (projection, hidden), True))
    return found


_RECURRENT_DEFAULTS: Options = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
}
_DEFAULTS: dict[str, Options] = {
    "Linear": {"bias": True},
    "LSTM": {**_RECURRENT_DEFAULTS, "proj_size": 0},
    "GRU": _RECURRENT_DEFAULTS,
    "RNN": {"num_layers": 1, "nonlinearity": "tanh", **_RECURRENT_DEFAULTS},
    "LSTMCell": {"bias": True},
    "GRUCell": {"bias": True},
    "RNNCell": {"bias": True, "nonlinearity": "tanh"},
    "Embedding": {"padding_idx": None},
    "EmbeddingBag": {"mode": "mean", "include_last_offset": False, "padding_idx": None},
}


def all_options(kind: str, options: Mapping[str, Any]) -> Options:
    """A layer's options with those that are not named, in PyTorch's order."""
    defaults = _DEFAULTS[kind]
    required = {name: value for name, value in options.items() if name not in defaults}
    return {**required, **{name: options.get(name, default) for name, default in defaults.items()}}


def description(kind: str, options: Mapping[str, Any]) -> Options:
    """A layer as a file describes it: options that have their defaults are not named."""
    defaults = _DEFAULTS[kind]
    options = all_options(kind, options)
    own = {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}
    return {"kind": kind, **own}


def layer_name(kind: str, options: Mapping[str, Any], dtype: str) -> str:
    """A layer's description as one string, which custom operators take."""
    return json.dumps({"dtype": dtype, **description(kind, options)})


def extra_repr(kind: str, options: Mapping[str, Any], dtype: str) -> str:
    """What PyTorch prints between the parentheses of a quantized layer."""
    scheme = (
        "dtype=torch.float16" if dtype == "float16" else "dtype=torch.qint8, qscheme=torch.per_channel_affine"
    )
    if kind == "Linear":
        return f"in_features={options['in_features']}, out_features={options['out_features']}, {scheme}"
    if kind in ("Embedding", "EmbeddingBag"):
        mode = f", mode='{options['mode']}'" if kind == "EmbeddingBag" else ""
        return f"num_embeddings={options['num_embeddings']}, embedding_dim={options['embedding_dim']}{mode}, {scheme}"
    text = f"{options['input_size']}, {options['hidden_size']}"
    for name in ("proj_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        if name in options and options[name] != _DEFAULTS["LSTM"][name]:
            text += f", {name}={options[name]}"
    if KINDS[kind].is_cell and options.get("nonlinearity", "tanh") != "tanh":
        text += f", nonlinearity={options['nonlinearity']}"
    return text


def quantized_name(kind: str) -> str:
    """The class name that PyTorch prints for a quantized layer."""
    return f"Quantized{kind}" if kind.startswith("Embedding") else f"DynamicQuantized{kind}"
