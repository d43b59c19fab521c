"""What fourfold can do without, and some of it cannot."""

from __future__ import annotations

import importlib.util


def require_torch(name: str) -> None:
    """Raises ModuleNotFoundError, an ImportError, where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError(f"fourfold.{name} needs PyTorch: pip install torch", name="torch")
