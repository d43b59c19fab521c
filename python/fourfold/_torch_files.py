"""PyTorch's modules to files and back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fourfold import _core, _tree
from fourfold import nn as quantized
from fourfold._files import FileTensor
from fourfold._layers import Options, all_options, description
from fourfold._packing import named_array, quantize
from fourfold._quantize_dynamic import hold_off_fast_paths, replace_modules
from fourfold.nn._base import QuantizedModule, empty_float_module

_QUANTIZED: dict[str, type[QuantizedModule]] = {
    layer.KIND: layer
    for layer in (
        quantized.Linear,
        quantized.LSTM,
        quantized.GRU,
        quantized.RNN,
        quantized.LSTMCell,
        quantized.GRUCell,
        quantized.RNNCell,
        quantized.Embedding,
        quantized.EmbeddingBag,
    )
}
_FLOAT: dict[type[nn.Module], type[QuantizedModule]] = {
    layer.FLOAT_MODULE: layer for layer in _QUANTIZED.values()
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {kind: getattr(nn, kind) for kind in _tree.ACTIVATIONS}


class Group(nn.Module):
    """What was of another class when it was saved: its parts are attributes, but how it runs is not known."""

    def __init__(self, type_name: str) -> None:
        super().__init__()
        self.type_name = type_name

    def _get_name(self) -> str:
        return self.type_name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"a file does not say how {self.type_name} runs: load(path, into={self.type_name}(...)) fills one that does"
        )


# ---- To a file ----


class Tensors:
    """The tensors of a model in the order of a file: those of layers, then those of other modules."""

    def __init__(self) -> None:
        self.of_layers: list[tuple[str, Tensor]] = []
        self.others: list[tuple[str, Tensor]] = []

    def arrays(self) -> list[_core.NamedArray]:
        """As the core takes them; they live as long as this object."""
        return [named_array(name, tensor) for name, tensor in self.of_layers + self.others]


def describe(model: nn.Module) -> tuple[Options, Tensors]:
    """The tree of a model's modules, and its tensors. Raises TypeError where it is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"save: model must be a torch.nn.Module, got {type(model).__name__}")
    tensors = Tensors()
    return _describe(model, "", tensors), tensors


def _describe(module: nn.Module, prefix: str, tensors: Tensors) -> Options:
    if isinstance(module, QuantizedModule) and type(module) is _QUANTIZED.get(module.KIND):
        tensors.of_layers += [(prefix + name, tensor) for name, tensor in _quantized_tensors(module)]
        return description(module.KIND, module._options)
    if _is_float_layer(module):
        layer = _FLOAT[type(module)]
        options = layer._float_options(module)
        tensors.of_layers += [(prefix + name, _plain(value)) for name, value in module.named_parameters()]
        return description(layer.KIND, options)
    kind = type(module).__name__
    if _ACTIVATIONS.get(kind) is type(module):
        options = {name: getattr(module, name) for name in _tree.ACTIVATIONS[kind]}
        if kind != "LogSoftmax" or options["dim"] == -1:
            defaults = {"dim": -1, "p": 0.5}
            return {
                "kind": kind,
                **{name: value for name, value in options.items() if value != defaults[name]},
            }
    entry: Options = {"kind": "Sequential"}
    if type(module) is not nn.Sequential:
        entry = {"kind": "Module", "type": module._get_name()}
    entry["children"] = {
        name: _describe(child, f"{prefix}{name}.", tensors)
        for name, child in module._modules.items()
        if child is not None
    }
    own = {
        name: value
        for name, value in module.state_dict(keep_vars=True).items()
        if name in module._parameters or name in module._buffers
    }
    if own and type(module) is not nn.Sequential:
        entry["tensors"] = list(own)
        tensors.others += [(prefix + name, _plain(value)) for name, value in own.items()]
    return entry


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _quantized_tensors(module: QuantizedModule) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for parameter in module._parameter_list():
        name = parameter.name
        shared = module._parameters.get(name)
        if shared is None:
            found.append((name, _plain(module._buffers[name])))  # type: ignore[arg-type]
            scale = module._buffers.get(name + "_scale")
        elif parameter.is_weight:
            # A file has no tensors in common: what another module shares is written as what it is quantized to.
            weight, scale = quantize(shared, module._dtype, name)
            found.append((name, weight))
        else:
            found.append((name, _plain(shared).float()))
            continue
        if scale is not None:
            found.append((name + "_scale", _plain(scale)))
    return found


def _is_float_layer(module: nn.Module) -> bool:
    if type(module) not in _FLOAT or getattr(module, "max_norm", None) is not None:
        return False
    return all(parameter.dtype == torch.float32 for parameter in module.parameters())


# ---- From a file ----


def tensor_from(file_tensor: FileTensor) -> Tensor:
    dtype = getattr(torch, file_tensor.dtype)
    if not file_tensor.data:
        return torch.empty(file_tensor.shape, dtype=dtype)
    return torch.frombuffer(file_tensor.data, dtype=dtype).reshape(file_tensor.shape)


class _Builder:
    def layer(self, layer: _tree.Layer) -> nn.Module:
        tensors = {name: tensor_from(tensor) for name, tensor in layer.tensors.items()}
        if layer.dtype != "float32":
            return _QUANTIZED[layer.kind]._from_tensors(layer.options, layer.dtype, tensors)
        module = empty_float_module(_QUANTIZED[layer.kind].FLOAT_MODULE, layer.options)
        module.load_state_dict(tensors)
        return module.eval()

    def activation(self, kind: str, options: Options) -> nn.Module:
        if kind == "LogSoftmax":
            options = {"dim": -1, **options}
        return _ACTIVATIONS[kind](**options).eval()

    def sequential(self, children: dict[str, nn.Module]) -> nn.Module:
        module = nn.Sequential()
        for name, child in children.items():
            module.add_module(name, child)
        return module.eval()

    def group(self, kind: str, children: dict[str, nn.Module], tensors: dict[str, FileTensor]) -> nn.Module:
        module = Group(kind)
        for name, child in children.items():
            module.add_module(name, child)
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor_from(tensor))
        return module.eval()


def build(description: Options, tensors: dict[str, FileTensor]) -> nn.Module:
    """A model of the modules that a file describes."""
    return _tree.build(_Builder(), description, tensors)


def fill(model: Any, description: Options | None, tensors: dict[str, FileTensor]) -> nn.Module:
    """Fills a model; layers that the file has quantized replace its float ones."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"load: into must be a torch.nn.Module, got {type(model).__name__}")
    state = {name: tensor_from(tensor) for name, tensor in tensors.items()}
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = {name: layer for name, layer in _tree.layers(description, tensors).items() if name in modules}
    differences = [
        text for name, layer in layers.items() if (text := _difference(name, layer, modules[name]))
    ]
    if differences:
        raise RuntimeError("\n".join(differences))
    replaced: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        if type(modules[name]) in _FLOAT and layer.dtype != "float32":
            replaced[modules[name]] = _Builder().layer(layer)
    # Tried on a copy, since load_state_dict stops midway where something does not fit.
    trial = copy.deepcopy(model, {id(old): copy.deepcopy(new) for old, new in replaced.items()})
    trial.load_state_dict(state)
    replace_modules(model, replaced)
    model.load_state_dict(state)
    hold_off_fast_paths(model)
    return model.eval()


# What changes no result in evaluation mode. Which index pads counts where the vectors of a bag are added up.
_WITHOUT_EFFECT = {("Embedding", "padding_idx"), *((kind, "dropout") for kind in ("LSTM", "GRU", "RNN"))}
# What a state dict does not say, so that `fourfold quantize` has to be told.
_UNKNOWN_TO_STATE_DICTS = {"batch_first": "--batch-first", "nonlinearity": "--nonlinearity"}


def _difference(name: str, layer: _tree.Layer, module: nn.Module) -> str:
    """How a file's layer differs from the model's module of that name, as a line; empty where it does not.

    Modules of other classes than PyTorch's and fourfold.nn's are load_state_dict's to judge.
    """
    if type(module) in _FLOAT:
        kind = _FLOAT[type(module)].KIND
        options = _FLOAT[type(module)]._float_options(module)
    elif isinstance(module, QuantizedModule):
        kind, options = module.KIND, module._options
    else:
        return ""
    where = name or kind
    if kind != layer.kind:
        return f"{where}: the file has {_with_article(layer.kind)}, the model {_with_article(kind)}"
    of_file = all_options(kind, layer.options)
    differing = [
        option
        for option, value in options.items()
        if (kind, option) not in _WITHOUT_EFFECT and of_file[option] != value
    ]
    if not differing:
        return ""
    theirs, own = (
        ", ".join(f"{option}={values[option]!r}" for option in differing) for values in (of_file, options)
    )
    flags = [flag for option, flag in _UNKNOWN_TO_STATE_DICTS.items() if option in differing]
    hint = f" (a state dict does not say: fourfold quantize takes {' and '.join(flags)})" if flags else ""
    return f"{where}: the file has {theirs}, the model {own}{hint}"


def _with_article(kind: str) -> str:
    return f"{'a' if kind in ('Linear', 'GRU', 'GRUCell') else 'an'} {kind}"
