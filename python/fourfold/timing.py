"""Timing several things fairly: in one process, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def spread(times: Sequence[float]) -> float:
    """How many times the lower quartile the upper one is: about 1 where nothing disturbs a measurement."""
    lower, _, upper = statistics.quantiles(times, n=4, method="inclusive")
    return upper / lower


def time_in_turns(runs: Mapping[str, Callable[[], Any]], seconds: float, **options: Any) -> dict[str, float]:
    """The median microseconds of one call of each: of what times_in_turns gives, which has the arguments."""
    return {
        name: statistics.median(times) for name, times in times_in_turns(runs, seconds, **options).items()
    }


def times_in_turns(
    runs: Mapping[str, Callable[[], Any]],
    seconds: float,
    *,
    rounds: int = 7,
    calls: int = 3,
    pause: float = 0,
) -> dict[str, list[float]]:
    """The microseconds of one call of each, from blocks of calls in turns: a figure a block.

    What else the machine does hits all alike. A block begins with a call that is not counted: the weights of the
    others are in the caches before it.

    Args:
        runs: what to call, by name.
        seconds: about how long to go on, in all.
        rounds: at least so many blocks of each.
        calls: at least so many counted calls in a block; more, where they are short.
        pause: seconds to wait before a block. Pools of threads go on spinning after a call, those of GCC's OpenMP
            for milliseconds and of LLVM's and Intel's for 0.2 seconds, and take the cores of the next block's.
    """
    in_block: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        in_block[name] = min(max(calls, round(0.004 / max(time.perf_counter() - start, 1e-7))), 200)
        times[name] = []
    deadline = time.perf_counter() + seconds
    done = 0
    while done < rounds or (time.perf_counter() < deadline and done < 200):
        for name, run in runs.items():
            if pause:
                time.sleep(pause)
            run()
            start = time.perf_counter()
            for _ in range(in_block[name]):
                run()
            times[name].append((time.perf_counter() - start) / in_block[name])
        done += 1
    return {name: [1e6 * value for value in values] for name, values in times.items()}
