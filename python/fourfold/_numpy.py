"""Models that run on NumPy arrays, where PyTorch is not there: the same kernels, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fourfold import _core, _tree
from fourfold._files import FileTensor
from fourfold._layers import KINDS, Options

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def _address(array: Array | None) -> int:
    return 0 if array is None else int(array.__array_interface__["data"][0])


def _named(array: Array, name: str = "input") -> _core.NamedArray:
    return name, array.dtype.name, array.shape, _address(array)


def _floats(kind: str, name: str, array: Any) -> Floats:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{kind}: {name} must be a numpy.ndarray, got {type(array).__name__}")
    if array.dtype != np.float32:
        raise ValueError(
            f"{kind}: {name} must be float32, got {array.dtype}: use {name}.astype(numpy.float32)"
        )
    return np.ascontiguousarray(array) if array.ndim else array


class Module:
    """What all have. `state_dict()` gives the tensors of the file."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Layer(Module):
    """A layer with weights; its options are attributes of PyTorch's names."""

    def __init__(self, layer: _tree.Layer) -> None:
        self.kind, self.options, self.dtype = layer.kind, layer.options, layer.dtype
        # The file's memory: what is packed is a copy, so this is all that there is besides.
        self._tensors = {name: array_from(tensor) for name, tensor in layer.tensors.items()}
        named = [_named(array, name) for name, array in self._tensors.items()]
        self._handle = KINDS[layer.kind].core(layer.options, named)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["options"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'") from None

    def state_dict(self) -> dict[str, Array]:
        return dict(self._tensors)

    def __repr__(self) -> str:
        return repr(self._handle)


class Linear(Layer):
    """float32 [..., in_features] to float32 [..., out_features]. Raises ValueError for another shape or dtype."""

    def __call__(self, input: Array) -> Floats:
        inputs, rows = self.options["in_features"], self.options["out_features"]
        input = _floats("Linear", "input", input)
        if input.ndim == 0 or input.shape[-1] != inputs:
            raise ValueError(
                f"Linear: input of shape {input.shape}: its last size must be in_features, {inputs}"
            )
        output = np.empty((*input.shape[:-1], rows), np.float32)
        self._handle.forward(_address(input), input.size // inputs, _address(output))
        return output


class Recurrent(Layer):
    """LSTM, GRU or RNN.

    input: float32 [steps, batch, input_size], with batch_first [batch, steps, input_size], or [steps, input_size].
    hx: (h_0, c_0) of an LSTM, h_0 of others: [num_layers * directions, batch, size], or without the batch; zeros
    where it is not given. lengths: how long each sequence is, in any order. Returns output and the state after each
    sequence's last step. Raises ValueError for another shape or dtype.
    """

    def __call__(self, input: Array, hx: Any = None, lengths: Any = None) -> tuple[Floats, Any]:
        get, kind = self.options.get, self.kind
        input = _floats(kind, "input", input)
        if input.ndim not in (2, 3):
            raise ValueError(f"{kind}: Expected input to be 2D or 3D, got {input.ndim}D instead")
        if input.shape[-1] != self.options["input_size"]:
            raise ValueError(
                "input.shape[-1] must be equal to input_size. "
                f"Expected {self.options['input_size']}, got {input.shape[-1]}"
            )
        batched = input.ndim == 3
        batch_first = batched and get("batch_first", False)
        steps = input.shape[1 if batch_first else 0]
        batch = input.shape[0 if batch_first else 1] if batched else 1
        if lengths is not None and not batched:
            raise ValueError(
                f"{kind}: lengths are for a batch of sequences; this input has no batch dimension"
            )
        directions = 2 if get("bidirectional", False) else 1
        hidden = self.options["hidden_size"]
        state_size = get("proj_size", 0) or hidden
        leading = (get("num_layers", 1) * directions, *((batch,) if batched else ()))
        h0, c0 = _states(kind, hx, (*leading, state_size), (*leading, hidden))
        output = np.empty((*input.shape[:-1], directions * state_size), np.float32)
        h_n = np.empty((*leading, state_size), np.float32)
        c_n = np.empty((*leading, hidden), np.float32) if kind == "LSTM" else None
        self._handle.forward(
            _address(input),
            steps,
            batch,
            batch_first,
            _address(h0),
            _address(c0),
            _address(output),
            _address(h_n),
            _address(c_n),
            () if lengths is None else [int(length) for length in lengths],
        )
        return output, (h_n if c_n is None else (h_n, c_n))


class Cell(Layer):
    """LSTMCell, GRUCell or RNNCell.

    input: float32 [batch, input_size] or [input_size]. hx: (h, c) of an LSTMCell, h of others, [batch, hidden_size]
    or [hidden_size]; zeros where it is not given. Returns the new state. Raises ValueError for another shape or dtype.
    """

    def __call__(self, input: Array, hx: Any = None) -> Floats | tuple[Floats, Floats]:
        kind = self.kind
        input = _floats(kind, "input", input)
        if input.ndim not in (1, 2):
            raise ValueError(f"{kind}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        if input.shape[-1] != self.options["input_size"]:
            raise ValueError(
                f"input has inconsistent input_size: got {input.shape[-1]}, expected {self.options['input_size']}"
            )
        shape = (*input.shape[:-1], self.options["hidden_size"])
        h0, c0 = _states(kind, hx, shape, shape)
        h = np.empty(shape, np.float32)
        c = np.empty(shape, np.float32) if kind == "LSTMCell" else None
        self._handle.forward(
            _address(input),
            1,
            input.shape[0] if input.ndim == 2 else 1,
            False,
            _address(h0),
            _address(c0),
            _address(h),
            0,
            _address(c),
            (),
        )
        return h if c is None else (h, c)


def _states(
    kind: str, hx: Any, h_shape: tuple[int, ...], c_shape: tuple[int, ...]
) -> tuple[Floats | None, Floats | None]:
    if hx is None:
        return None, None
    given = tuple(hx) if kind.startswith("LSTM") else (hx,)
    checked = []
    for index, (state, shape) in enumerate(zip(given, (h_shape, c_shape))):
        state = _floats(kind, f"hx[{index}]", state)
        if state.shape != shape:
            raise ValueError(f"Expected hidden[{index}] size {shape}, got {list(state.shape)}")
        checked.append(state)
    return checked[0], checked[1] if len(checked) > 1 else None


def _indices(kind: str, name: str, array: Any) -> Array:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{kind}: {name} must be a numpy.ndarray, got {type(array).__name__}")
    return np.ascontiguousarray(array) if array.ndim else array


class Embedding(Layer):
    """int64 or int32 of any shape to float32 of that shape and [embedding_dim]. Raises ValueError."""

    def __call__(self, input: Array) -> Floats:
        input = _indices("Embedding", "input", input)
        output = np.empty((*input.shape, self.options["embedding_dim"]), np.float32)
        self._handle.forward(_named(input), _address(output))
        return output


class EmbeddingBag(Layer):
    """Bags of int64 or int32 indices, [bags, length] or [n] with offsets, to float32 [bags, embedding_dim]."""

    def __call__(
        self, input: Array, offsets: Array | None = None, per_sample_weights: Array | None = None
    ) -> Floats:
        input = _indices("EmbeddingBag", "input", input)
        bags = input.shape[0] if input.ndim else 0
        if offsets is not None:
            offsets = _indices("EmbeddingBag", "offsets", offsets)
            bags = offsets.size - (1 if self.options.get("include_last_offset", False) else 0)
        if per_sample_weights is not None:
            per_sample_weights = _floats("EmbeddingBag", "per_sample_weights", per_sample_weights)
        output = np.empty((max(bags, 0), self.options["embedding_dim"]), np.float32)
        optional = [None if array is None else _named(array) for array in (offsets, per_sample_weights)]
        self._handle.forward(_named(input), *optional, _address(output))
        return output


class Activation(Module):
    """ReLU, Tanh, Sigmoid, LogSoftmax over the last dimension, or Dropout, which does nothing after training."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, input: Array) -> Floats:
        input = _floats(self.kind, "input", input)
        functions = {
            "ReLU": _core.relu,
            "Tanh": _core.tanh,
            "Sigmoid": _core.sigmoid,
            "LogSoftmax": _core.log_softmax,
        }
        if self.kind == "Dropout":
            return input
        output = np.empty_like(input)
        functions[self.kind](_named(input), _address(output))
        return output

    def __repr__(self) -> str:
        return f"{self.kind}()"


class Container(Module):
    """Modules with names: attributes, and items by name."""

    def __init__(self, kind: str, children: dict[str, Module], tensors: dict[str, Array]) -> None:
        self._kind, self._children, self._tensors = kind, children, tensors

    def __getattr__(self, name: str) -> Any:
        for found in (self.__dict__.get("_children", {}), self.__dict__.get("_tensors", {})):
            if name in found:
                return found[name]
        raise AttributeError(f"{self.__dict__.get('_kind', 'Container')} has no attribute '{name}'")

    def __getitem__(self, name: str | int) -> Module:
        return self._children[str(name)]

    def state_dict(self) -> dict[str, Array]:
        state = {
            f"{name}.{key}": array
            for name, child in self._children.items()
            for key, array in child.state_dict().items()
        }
        return {**state, **self._tensors}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"a file does not say how {self._kind} runs; its parts are attributes")

    def __repr__(self) -> str:
        lines = "".join(
            f"\n  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._children.items()
        )
        return f"{self._kind}({lines}\n)" if lines else f"{self._kind}()"


class Sequential(Container):
    """Modules that run one after another; of a recurrent layer, the next takes its output without its state."""

    def __call__(self, input: Array, lengths: Any = None) -> Any:
        for child in self._children.values():
            if isinstance(child, Recurrent):
                input, _ = child(input, lengths=lengths)
            else:
                input = child(input)
        return input


def array_from(tensor: FileTensor) -> Array:
    """A view of a file's bytes. Raises fourfold.Error where NumPy has no such dtype."""
    names = {"boolean": "bool"}
    try:
        dtype = np.dtype(names.get(tensor.dtype, tensor.dtype))
    except TypeError:
        raise _core.Error(f"NumPy has no elements of {tensor.dtype}") from None
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


_LAYERS: dict[str, type[Layer]] = {
    "Linear": Linear,
    "LSTM": Recurrent,
    "GRU": Recurrent,
    "RNN": Recurrent,
    "LSTMCell": Cell,
    "GRUCell": Cell,
    "RNNCell": Cell,
    "Embedding": Embedding,
    "EmbeddingBag": EmbeddingBag,
}


class _Builder:
    def layer(self, layer: _tree.Layer) -> Module:
        return _LAYERS[layer.kind](layer)

    def activation(self, kind: str, options: Options) -> Module:
        return Activation(kind)

    def sequential(self, children: dict[str, Module]) -> Module:
        return Sequential("Sequential", children, {})

    def group(self, kind: str, children: dict[str, Module], tensors: dict[str, FileTensor]) -> Module:
        return Container(kind, children, {name: array_from(tensor) for name, tensor in tensors.items()})


def build(description: Options, tensors: dict[str, FileTensor]) -> Module:
    """A model of the modules that a file describes."""
    return _tree.build(_Builder(), description, tensors)
