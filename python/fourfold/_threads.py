"""How many threads a call may use: as many as PyTorch, or as the user says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

from fourfold import _core

_ALL = _core.num_threads()  # where nobody says otherwise: the CPUs that the process may run on
_chosen: int | None = None
current = 0  # PyTorch's number that the core was told last; 0: none
_torch_threads: Callable[[], int] | None = None


def set_num_threads(threads: int | None) -> None:
    """How many threads one call may use from now on; results do not depend on it.

    Args:
        threads: at least 1. None goes back to the default: torch.get_num_threads(), or all CPUs that the
            process may run on where PyTorch is not in use.

    Raises:
        ValueError: below 1 and above 1024.
    """
    global _chosen, current
    _core.set_num_threads(_ALL if threads is None else threads)
    _chosen, current = threads, 0


def get_num_threads() -> int:
    """How many threads one call may use."""
    if _chosen is None and "torch" in sys.modules:
        follow_torch()
    return _core.num_threads()


def follow_torch() -> None:
    """Called before work on tensors. PyTorch's number may change at any time, and reading it is quick."""
    global current, _torch_threads
    if _chosen is not None:
        return
    if _torch_threads is None:
        torch: Any = sys.modules["torch"]
        _torch_threads = torch.get_num_threads
    threads = _torch_threads()
    if threads != current:
        _core.set_num_threads(threads)
        current = threads


def share_torch_threads() -> None:
    """Called once PyTorch is there. From then on its OpenMP threads do the work, where its own operators have just run.

    Not in a process that was forked and runs on: OpenMP's threads stayed behind in the parent, and OpenMP would
    wait for them.
    """
    if sys.platform == "linux":
        _core.use_openmp(not _was_forked())


def _was_forked() -> bool:
    forked_without_exec = 0x40  # PF_FORKNOEXEC, in proc(5)'s flags
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & forked_without_exec)
    except (OSError, ValueError, IndexError):
        return True
