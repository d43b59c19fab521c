"""save and load: files that the C++ library reads and writes as well.

A file is a safetensors file of the state dict, whose metadata describes the tree of modules (docs/format.md).
Nothing here needs PyTorch until a model of PyTorch's modules comes in, or is wanted.
"""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any, Literal, NamedTuple, Union

from fourfold import _core
from fourfold._require import require_torch

_KEY, _VERSION = "fourfold", 1

Path = Union[str, "os.PathLike[str]"]


class FileTensor(NamedTuple):
    """A tensor as a file holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytearray


def save(model: Any, path: Path) -> None:
    """Writes a model: its quantized and float layers, and all else that its state dict holds.

    It is written under a temporary name and renamed, so a failure leaves what was there.

    Args:
        model: a torch.nn.Module.
        path: a name that ends in .safetensors.

    Raises:
        ImportError: where PyTorch is missing.
        TypeError: where the model is none.
        ValueError: for another extension, or a tensor that the format cannot hold.
        fourfold.Error: where the system refuses.
    """
    require_torch("save")
    from fourfold import _torch_files

    description, tensors = _torch_files.describe(model)
    metadata = {
        _KEY: json.dumps(
            {"version": _VERSION, "model": description}, separators=(",", ":"), ensure_ascii=False
        )
    }
    _core.write_tensors(os.fspath(path), tensors.arrays(), metadata)


def load(path: Path, into: Any = None, *, backend: Literal["torch", "numpy"] | None = None) -> Any:
    """Reads a model that save(), or the C++ library, has written.

    Args:
        path: the file.
        into: a torch.nn.Module to fill, of the model's names: its float layers that the file has quantized are
            replaced by their quantized counterparts. It is needed for a model of a class of your own to run, which a
            file cannot describe, and for a file that another library wrote.
        backend: what the model runs on where `into` is not given: "torch", the default where PyTorch is installed,
            or "numpy", the default where it is not.

    Returns:
        `into`, or a model made of the kinds that a file can describe. What was of another class has its parts as
        attributes but cannot be called.

    Raises:
        ImportError: where `into` or `backend` needs PyTorch, and it is missing.
        FileNotFoundError: where there is no such file.
        fourfold.Error: where the file is not whole and valid.
        ValueError: where it describes no model and `into` is not given.
        RuntimeError: where `into` has other names or shapes, or a layer of another class or with other options that
            change results; it is unchanged then.
    """
    if backend not in (None, "torch", "numpy"):
        raise ValueError(f"backend must be 'torch' or 'numpy', got {backend!r}")
    if into is not None:
        require_torch("load(into=...)")
    elif backend == "torch":
        require_torch("load(backend='torch')")
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file: {os.fspath(path)}")
    entries, metadata = _core.read_tensors(os.fspath(path))
    tensors = {name: FileTensor(dtype, tuple(shape), data) for name, dtype, shape, data in entries}
    try:
        description = _description(metadata)
        if into is not None:
            from fourfold import _torch_files

            return _torch_files.fill(into, description, tensors)
        if description is None:
            raise ValueError("describes no model; give one to fill with load(path, into=model)")
        if backend == "torch" or (backend is None and importlib.util.find_spec("torch") is not None):
            from fourfold import _torch_files

            return _torch_files.build(description, tensors)
        from fourfold import _numpy

        return _numpy.build(description, tensors)
    except (_core.Error, ValueError) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def _description(metadata: dict[str, str]) -> dict[str, Any] | None:
    """The tree of modules in a file's metadata; None where another library wrote it."""
    if _KEY not in metadata:
        return None
    try:
        header = json.loads(metadata[_KEY])
        version, model = header["version"], header["model"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _core.Error(f"its metadata '{_KEY}' describes no model") from None
    if version != _VERSION:
        raise _core.Error(f"is of version {version} of the format; this library reads version {_VERSION}")
    if not isinstance(model, dict):
        raise _core.Error(f"its metadata '{_KEY}' describes no model")
    return model
