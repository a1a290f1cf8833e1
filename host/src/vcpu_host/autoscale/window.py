# SPDX-License-Identifier: Apache-2.0
"""The usage of the last minutes: averages over a short time, and the highest of a long one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .usage import Usage

#: So many spans are kept at most, whatever rate a guest sends at.
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Averages:
    """Averages over some spans, in vCPUs, tasks and shares; None is not known. ``cpus`` is that of the newest span.

    ``steal`` is what the guest's kernel says, and what it missed (``Usage.missed``) if that is more than it may err by.
    """

    covers: float
    cpus: int
    used: float
    steal: float
    waiting: float | None
    pressure: float | None
    memory: float | None

    @property
    def demand(self) -> float:
        """How many vCPUs would have been busy, had there been enough, and had the host run them."""
        return self.running + (self.waiting or 0.0)

    @property
    def running(self) -> float:
        """How many vCPUs had something to run."""
        return self.used + self.steal


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest short averages of these, in vCPUs; each may be of another moment."""

    demand: float
    used: float
    running: float


#: A kernel's counters have steps of 10 ms and are not read in one moment: a smaller share of the time does not lack.
ERROR = 0.03
#: Into so many parts a window is divided: a peak counts until its part is over.
_PARTS = 512


class _Highest:
    """The highest value of the last ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._part = seconds / _PARTS
        #: Ends of parts with values, of which none is below a later one.
        self._values: deque[tuple[float, float]] = deque()

    def add(self, at: float, value: float) -> None:
        """Take a value. Its time is not before that of the last one."""
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        end = (at // self._part + 1) * self._part
        if not self._values or self._values[-1][0] < end:
            self._values.append((end, value))
        while self._values[0][0] < at - self._seconds:
            self._values.popleft()

    def at(self, now: float) -> float | None:
        """Return the highest value; None if there was none."""
        return next((value for at, value in self._values if at >= now - self._seconds), None)


class Window:
    """Spans of usage, the newest last. ``short`` and ``long`` are in seconds.

    A gap of more than ``gap`` seconds makes it begin anew: what was before says nothing about what was in between.
    """

    def __init__(self, short: float, long: float, gap: float = 15.0) -> None:
        self._short = short
        self._long = long
        self._gap = gap
        self._spans: deque[Usage] = deque(maxlen=_MOST)
        self._demand, self._used, self._running = (_Highest(long) for _ in range(3))
        self._since: float | None = None

    def clear(self) -> None:
        """Forget all."""
        self._spans.clear()
        self._demand, self._used, self._running = (_Highest(self._long) for _ in range(3))
        self._since = None

    def add(self, usage: Usage) -> None:
        """Take a span. Its ``at`` is not before that of the last one."""
        if self._spans and usage.at - self._spans[-1].at > self._gap:
            self.clear()
        if self._since is None:
            self._since = usage.at - min(usage.span, self._gap)
        self._spans.append(usage)
        while self._spans[0].at <= usage.at - self._short:
            self._spans.popleft()
        averages = _averages(self._spans, usage.at - self._short)
        self._demand.add(usage.at, averages.demand)
        self._used.add(usage.at, averages.used)
        self._running.add(usage.at, averages.running)

    @property
    def newest(self) -> Usage | None:
        """The last span."""
        return self._spans[-1] if self._spans else None

    def averages(self, now: float) -> Averages | None:
        """Return the averages over the last ``short`` seconds that were measured; None if there are none.

        What was measured last counts until something newer is: an agent whose guest is idle speaks seldom.
        """
        if not self._spans:
            return None
        until = min(now, self._spans[-1].at)
        return _averages(self._spans, until - self._short)

    def covered(self, now: float) -> float:
        """Return for how many seconds there is usage without a gap."""
        return 0.0 if self._since is None else max(0.0, now - self._since)

    def highest(self, now: float) -> Peak | None:
        """Return the highest short averages within the last ``long`` seconds; None if there is none."""
        demand, used, running = (highest.at(now) for highest in (self._demand, self._used, self._running))
        return None if demand is None or used is None or running is None else Peak(demand, used, running)


def _averages(spans: Iterable[Usage], since: float) -> Averages:
    """Return the averages of what lies after ``since``: of a span that began before, only the rest counts."""
    weighed = [(usage, min(usage.span, usage.at - since)) for usage in spans if usage.at > since]
    whole = sum(weight for _, weight in weighed)

    def mean(get: Callable[[Usage], float]) -> float:
        return sum(get(usage) * weight for usage, weight in weighed) / whole

    def known(get: Callable[[Usage], float | None]) -> float | None:
        values = [(value, weight) for usage, weight in weighed if (value := get(usage)) is not None]
        return sum(value * weight for value, weight in values) / sum(weight for _, weight in values) if values else None

    missed = mean(lambda usage: usage.missed)
    return Averages(
        covers=whole,
        cpus=weighed[-1][0].cpus,
        used=mean(lambda usage: usage.used),
        steal=mean(lambda usage: usage.steal) + (missed if missed > ERROR * weighed[-1][0].cpus else 0.0),
        waiting=known(lambda usage: usage.waiting),
        pressure=known(lambda usage: usage.pressure),
        memory=known(lambda usage: usage.memory),
    )
