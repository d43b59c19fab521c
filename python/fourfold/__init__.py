"""Dynamic INT8 quantization for recurrent and linear networks on CPUs.

    import torch
    import fourfold

    quantized = fourfold.quantize_dynamic(model, {torch.nn.LSTM, torch.nn.Linear}, dtype=torch.qint8)
    fourfold.save(quantized, "model.safetensors")

PyTorch is imported when something needs it: without it, load() gives models that run on NumPy arrays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fourfold._core import Error, __version__, current_isa, set_isa, supported_isas
from fourfold._files import load, save
from fourfold._require import require_torch
from fourfold._threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from fourfold import nn
    from fourfold._analysis.run import analyze
    from fourfold._from_torch_ao import from_torch_ao
    from fourfold._quantize_dynamic import quantize_dynamic

__all__ = [
    "Error",
    "__version__",
    "analyze",
    "current_isa",
    "from_torch_ao",
    "get_num_threads",
    "load",
    "nn",
    "quantize_dynamic",
    "save",
    "set_isa",
    "set_num_threads",
    "supported_isas",
]

_NEED_TORCH = {
    "analyze": "fourfold._analysis.run",
    "from_torch_ao": "fourfold._from_torch_ao",
    "quantize_dynamic": "fourfold._quantize_dynamic",
}


def __getattr__(name: str) -> Any:
    if name == "nn":
        return importlib.import_module("fourfold.nn")
    if name in _NEED_TORCH:
        require_torch(name)
        value = getattr(importlib.import_module(_NEED_TORCH[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fourfold' has no attribute '{name}'")
