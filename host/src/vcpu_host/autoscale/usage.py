# SPDX-License-Identifier: Apache-2.0
"""Rates from counters: what the guest's CPUs did between two samples.

The guest is not trusted (promise 6), and it need not lie to be wrong: a CPU's counters stop while it is offline,
samples come late, twice or not at all, and another boot begins anew. So only CPUs count that are in both samples, each
rate is held within what its span allows, and two samples that do not follow each other make no span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .sample import CpuTimes, LoadSample

#: Spans that are longer, in the guest's seconds, say nothing about the moment, and shorter ones little about anything.
LONGEST, SHORTEST = 30.0, 0.05
#: A CPU whose idle share is not above this is never idle.
IDLE = 0.05
#: So many tasks a CPU may be said to wait at most. More change no decision, and a guest may say anything.
MOST_WAITING = 256.0


@dataclass(frozen=True, slots=True)
class Usage:
    """A span of usage: it ended at ``at`` (the host's clock), and took ``span`` seconds of the guest's.

    ``used``, ``steal``, ``iowait`` and ``waiting`` are averages over the span, in vCPUs and tasks. ``missed`` is what
    the guest's kernel did not account for on CPUs that were never idle, in vCPUs; below 0 if it accounted for too much.
    ``pressure`` and ``memory`` are the shares of it in which some task waited for a CPU, or for memory. None is not
    known.
    """

    at: float
    span: float
    cpus: int
    used: float
    steal: float
    iowait: float
    waiting: float | None
    pressure: float | None
    memory: float | None
    missed: float = 0.0


class Meter:
    """Takes samples as they come, and makes spans of them."""

    def __init__(self) -> None:
        self._last: LoadSample | None = None

    def reset(self) -> None:
        """Forget the last sample: the next one follows none."""
        self._last = None

    def take(self, sample: LoadSample, now: float) -> Usage | None:
        """Return the usage since the last sample; None if the two make no span."""
        if not _sane(sample):
            return None
        last = self._last
        if last is None or last.boot != sample.boot:
            self._last = sample
            return None
        span = sample.guest_time - last.guest_time
        if span < SHORTEST:
            if span < -LONGEST:  # one of long ago is the late one; a clock that was set back goes on from here
                self._last = sample
            return None
        self._last = sample
        return _usage(last, sample, now, span) if span <= LONGEST else None


def _sane(sample: LoadSample) -> bool:
    numbers = [sample.guest_time, sample.cpu_pressure or 0.0, sample.memory_pressure or 0.0]
    for cpu in sample.cpus:
        numbers += [cpu.busy, cpu.steal, cpu.iowait, cpu.waited or 0.0, cpu.idle or 0.0]
    return all(math.isfinite(number) for number in numbers)


def _usage(last: LoadSample, sample: LoadSample, now: float, span: float) -> Usage | None:
    before = {cpu.number: cpu for cpu in last.cpus}
    both = [(before[cpu.number], cpu) for cpu in sample.cpus if cpu.number in before]
    if not both:
        return None
    count = len(both)
    waits = [(new.waited - old.waited) / span for old, new in both if new.waited is not None and old.waited is not None]
    if waits:
        waiting: float | None = _within(sum(max(0.0, wait) for wait in waits), MOST_WAITING * count)
    elif sample.runnable is not None:
        # The moment's count, less those that run: rougher, but of the same kind.
        waiting = _within(float(sample.runnable - count), MOST_WAITING * count)
    else:
        waiting = None
    return Usage(
        at=now,
        span=span,
        cpus=count,
        used=sum(_within((new.busy - old.busy) / span, 1.0) for old, new in both),
        steal=sum(_within((new.steal - old.steal) / span, 1.0) for old, new in both),
        iowait=sum(_within((new.iowait - old.iowait) / span, 1.0) for old, new in both),
        waiting=waiting,
        pressure=_share(last.cpu_pressure, sample.cpu_pressure, span),
        memory=_share(last.memory_pressure, sample.memory_pressure, span),
        missed=sum(_missed(old, new, span) for old, new in both),
    )


def _missed(old: CpuTimes, new: CpuTimes, span: float) -> float:
    """Return the share of the span that a CPU's times lack, 0 if that says nothing.

    A kernel without a clock for steal (no kvm-steal-time, TCG) counts by its ticks, and while the host runs something
    else there are none: seen as 40 % user, nothing idle, nothing stolen. That can be told only of a CPU that is never
    idle: what runs between two ticks beside idle time is not counted, either. Nor can it be of counters that went back,
    as those of idle time do when a CPU goes offline.
    """
    if old.idle is None or new.idle is None or new.idle < old.idle or new.busy < old.busy:
        return 0.0
    idle = new.idle - old.idle + max(0.0, new.iowait - old.iowait)
    if idle > IDLE * span:
        return 0.0
    lack = 1.0 - (new.busy - old.busy + idle + max(0.0, new.steal - old.steal)) / span
    return max(-1.0, min(1.0, lack))


def _share(old: float | None, new: float | None, span: float) -> float | None:
    return None if old is None or new is None else _within((new - old) / span, 1.0)


def _within(value: float, most: float) -> float:
    return min(max(value, 0.0), most)
