"""Building a model out of a file's description, for whatever it is to run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fourfold import _core
from fourfold._files import FileTensor
from fourfold._layers import KINDS, Options, parameters

T = TypeVar("T")

_DEEPEST = 200  # as the C++ reader's: a hostile file must not exhaust the stack

# Kinds without weights, and their options.
ACTIVATIONS: dict[str, dict[str, type]] = {
    "ReLU": {},
    "Tanh": {},
    "Sigmoid": {},
    "LogSoftmax": {"dim": int},
    "Dropout": {"p": float},
}


class Layer(NamedTuple):
    """A layer with weights as a file has it."""

    kind: str
    options: Options
    tensors: dict[str, FileTensor]

    @property
    def dtype(self) -> str:
        """Of the weights: "float32", "float16" or "qint8"."""
        weight = next(p.name for p in parameters(self.kind, self.options) if p.is_weight)
        return {"int8": "qint8"}.get(self.tensors[weight].dtype, self.tensors[weight].dtype)


class Builder(Protocol[T]):
    """Makes modules of one framework."""

    def layer(self, layer: Layer) -> T: ...
    def activation(self, kind: str, options: Options) -> T: ...
    def sequential(self, children: dict[str, T]) -> T: ...
    def group(self, kind: str, children: dict[str, T], tensors: dict[str, FileTensor]) -> T: ...


class _Reader(Generic[T]):
    def __init__(self, builder: Builder[T], tensors: dict[str, FileTensor]) -> None:
        self.builder = builder
        self.left = dict(tensors)  # each is taken once

    def read(self, description: Any, name: str, depth: int) -> T:
        where = f"module '{name}': "
        if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
            raise _core.Error(where + "its description is no object with a kind")
        if depth > _DEEPEST:
            raise _core.Error(f"{where}nested deeper than {_DEEPEST}")
        options = dict(description)
        kind = options.pop("kind")
        if kind in KINDS:
            prefix = f"{name}." if name else ""
            own = {
                key[len(prefix) :]: self.left.pop(key) for key in list(self.left) if key.startswith(prefix)
            }
            return self._checked(where, lambda: self.builder.layer(checked_layer(kind, options, own)))
        if kind in ACTIVATIONS:
            return self._checked(
                where, lambda: self.builder.activation(kind, _activation_options(kind, options))
            )
        if kind not in ("Sequential", "Module"):
            raise _core.Error(f"{where}unknown kind '{kind}'")
        given = options.get("children", {})
        if not isinstance(given, dict):
            raise _core.Error(where + "its children are no object")
        children = {
            child: self.read(entry, f"{name}.{child}" if name else child, depth + 1)
            for child, entry in given.items()
        }
        if kind == "Sequential":
            return self.builder.sequential(children)
        listed, type_name = options.get("tensors", []), options.get("type", "Module")
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            raise _core.Error(where + "its tensors are no list of names")
        if not isinstance(type_name, str):
            raise _core.Error(where + "its type is no text")
        return self.builder.group(type_name, children, {entry: self._take(name, entry) for entry in listed})

    def _take(self, name: str, entry: str) -> FileTensor:
        full = f"{name}.{entry}" if name else entry
        if full not in self.left:
            raise _core.Error(f"{full}: missing")
        return self.left.pop(full)

    def _checked(self, where: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except (KeyError, TypeError, ValueError, _core.Error) as error:
            raise _core.Error(f"{where}{error}") from None


def build(builder: Builder[T], description: dict[str, Any], tensors: dict[str, FileTensor]) -> T:
    """The model that a file describes. Raises fourfold.Error where it is not whole and valid."""
    reader = _Reader(builder, tensors)
    model = reader.read(description, "", 0)
    for name in reader.left:
        raise _core.Error(f"{name}: belongs to no module of the file")
    return model


def layers(description: Any, tensors: dict[str, FileTensor], name: str = "") -> dict[str, Layer]:
    """The layers with weights that a file describes, by dotted name."""
    if not isinstance(description, dict):
        return {}
    options = dict(description)
    kind = options.pop("kind", None)
    prefix = f"{name}." if name else ""
    if kind in KINDS:
        own = {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        return {name: checked_layer(kind, options, own)}
    found: dict[str, Layer] = {}
    children = options.get("children", {})
    for child, entry in children.items() if isinstance(children, dict) else ():
        found.update(layers(entry, tensors, prefix + child))
    return found


def checked_layer(kind: str, options: Options, tensors: dict[str, FileTensor]) -> Layer:
    """A layer whose tensors are all there and of the right shapes; their values are the core's to judge."""
    layers = options.get("num_layers", 1)
    if not isinstance(layers, int) or not 1 <= layers <= max(len(tensors), 1):
        raise _core.Error(
            f"num_layers must be from 1 to the number of tensors, {len(tensors)}, is {layers!r}"
        )
    left = set(tensors)
    for parameter in parameters(kind, options):
        if parameter.name not in tensors:
            raise _core.Error(
                f"{parameter.name}: missing; expected a tensor of shape {list(parameter.shape)}"
            )
        tensor = tensors[parameter.name]
        if tensor.shape != parameter.shape:
            raise _core.Error(
                f"{parameter.name}: expected shape {list(parameter.shape)}, got {list(tensor.shape)}"
            )
        left.discard(parameter.name)
        if tensor.dtype == "int8":
            if parameter.name + "_scale" not in tensors:
                raise _core.Error(f"{parameter.name}_scale: missing")
            left.discard(parameter.name + "_scale")
    for name in sorted(left):
        raise _core.Error(f"{name}: no such parameter")
    return Layer(kind, options, tensors)


def _activation_options(kind: str, options: Options) -> Options:
    known = ACTIVATIONS[kind]
    for name, value in options.items():
        if name not in known:
            raise _core.Error(f"has an option that this version does not know: {name}")
        if not isinstance(value, (int, float)):
            raise _core.Error(f"{name} must be a number, is {value!r}")
    return options
