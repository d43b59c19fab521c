"""What is seen while a model runs, and while the analysis does."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fourfold._analysis.report import Histogram
from fourfold._analysis.values import SAMPLE, histogram, sample


class _Hooks:
    """Hooks before and after the calls of modules, as long as the context lasts."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._handles: list[Any] = []

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...

    def after(self, name: str) -> None: ...

    def __enter__(self) -> Any:
        for name, module in self._modules.items():
            self._handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: self.before(name, args, kwargs), with_kwargs=True
                )
            )
            self._handles.append(module.register_forward_hook(lambda *_, name=name: self.after(name)))
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()


class Watch(_Hooks):
    """Counts calls, and keeps a sample of the values that come into each layer."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(modules)
        self.calls = dict.fromkeys(modules, 0)
        self._values: dict[str, list[Tensor]] = {name: [] for name in modules}

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls[name] += 1
        value = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(value, PackedSequence):
            value = value.data
        kept = sum(map(len, self._values[name]))
        if isinstance(value, Tensor) and value.is_floating_point() and not value.is_nested and kept < SAMPLE:
            self._values[name].append(sample(value.detach().flatten(), SAMPLE // 8).clone())

    def histogram(self, name: str) -> Histogram | None:
        values = self._values[name]
        return histogram(torch.cat(values).double()) if values else None


class Stopwatch(_Hooks):
    """Sums the seconds that each layer takes."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(modules)
        self.spent = dict.fromkeys(modules, 0.0)
        self._began = dict.fromkeys(modules, 0.0)

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._began[name] = time.perf_counter()

    def after(self, name: str) -> None:
        self.spent[name] += time.perf_counter() - self._began[name]


class Bar:
    """A bar on stderr."""

    def __init__(self, shown: bool | None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None

    def start(self, steps: int) -> None:
        if not self._shown:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            print("analyze: no progress bar without tqdm: pip install 'fourfold[analyze]'", file=sys.stderr)
            return
        self._bar = tqdm(total=steps, unit="run", leave=False, file=sys.stderr, dynamic_ncols=True)

    def more(self, steps: int) -> None:
        if self._bar is not None:
            self._bar.total += steps
            self._bar.refresh()

    def step(self, done: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(done, refresh=False)
            self._bar.update()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
