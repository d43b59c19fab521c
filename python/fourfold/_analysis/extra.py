"""What `pip install 'fourfold[analyze]'` brings."""

from __future__ import annotations

import importlib.util


def require(what: str) -> None:
    """Raises ImportError where the libraries that make pages and pictures are missing."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install 'fourfold[analyze]'")
