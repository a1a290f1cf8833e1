# SPDX-License-Identifier: Apache-2.0
"""Loads over time. Each is a function of the time, so that every rule meets the same."""

from __future__ import annotations

import json
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from .guest import Load

MINUTE, HOUR = 60.0, 3600.0
#: What was recorded in real guests: tasks that ran or could have run, by seconds (``kit.bench.autoscale``).
RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True, slots=True)
class Trace:
    """A load by its name, for so many seconds."""

    name: str
    seconds: float
    at: Callable[[float], Load]


def square(period: float, high: float = 4.0, low: float = 0.2) -> Callable[[float], Load]:
    """Return requests that bring much work for half of each period, and little for the other half."""
    return lambda time: Load(work=high if time % period < period / 2 else low)


def busy_threads(time: float) -> Load:
    """Six processes that compute for ten minutes of every twenty."""
    return Load(threads=6.0 if time % (20 * MINUTE) < 10 * MINUTE else 0.1)


def burst(time: float) -> Load:
    """Little, and for 40 s in every ten minutes as much as the largest guest can do."""
    return Load(work=7.0 if 300 <= time % 600 < 340 else 0.3)


def daily(time: float, *, day: float = 6 * HOUR) -> Load:
    """A day with a morning's rise, noon, and an evening's peak, with noise; six hours are a day here."""
    hour = time % day / day * 24
    shape = 0.4 + 2.6 * math.exp(-(((hour - 11) / 3) ** 2)) + 3.6 * math.exp(-(((hour - 19) / 2.2) ** 2))
    noise = random.Random(int(time / 7)).uniform(0.85, 1.15)  # the same for each rule
    return Load(work=shape * noise)


def noisy_neighbour(time: float) -> Load:
    """Steady work for 1.4 vCPUs; in five minutes of every ten the host takes a quarter of each CPU away."""
    return Load(work=1.4, stolen=0.25 if time % 600 >= 300 else 0.0)


def leak(time: float) -> Load:
    """A thread more each minute, none of which ends, until the program is started again after 25 minutes."""
    return Load(threads=float(int(time % (25 * MINUTE) / MINUTE)))


def _recorded(spans: Sequence[Sequence[float]]) -> Callable[[float], Load]:
    ends = list(accumulate(seconds for seconds, _ in spans))
    return lambda time: Load(threads=spans[min(bisect_right(ends, time % ends[-1]), len(spans) - 1)][1])


def recorded() -> list[Trace]:
    """Return what was recorded in guests, by the files' names."""
    found = []
    for path in sorted(RECORDED.glob("*.json")):
        spans = json.loads(path.read_text())["spans"]
        found.append(Trace(f"recorded: {path.stem}", sum(seconds for seconds, _ in spans), _recorded(spans)))
    return found


def single() -> list[Trace]:
    """Return the traces one by one."""
    squares = [
        Trace(f"square wave, {name}", length, square(period))
        for name, period, length in (
            ("10 s", 10.0, 20 * MINUTE),
            ("1 min", MINUTE, 30 * MINUTE),
            ("10 min", 10 * MINUTE, HOUR),
            ("30 min", 30 * MINUTE, 2 * HOUR),
        )
    ]
    return [
        *squares,
        Trace("busy processes", HOUR, busy_threads),
        Trace("burst", HOUR, burst),
        Trace("daily curve", 6 * HOUR, daily),
        Trace("noisy neighbour", HOUR, noisy_neighbour),
        Trace("leak of threads", 50 * MINUTE, leak),
        *recorded(),
    ]


def mixed() -> Trace:
    """Return all of them, one after the other: what aims are stated for."""
    parts = single()
    begins = [0.0, *accumulate(part.seconds for part in parts)]
    return Trace("all of them in a row", begins[-1], partial(_mixed, parts, begins))


def _mixed(parts: Sequence[Trace], begins: Sequence[float], time: float) -> Load:
    index = min(bisect_right(begins, time) - 1, len(parts) - 1)
    return parts[index].at(time - begins[index])
